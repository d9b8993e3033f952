"""HTML pages and charts: one file each, readable without a network or a script."""
