"""One question a file: it runs, compares and answers with numbers and pictures."""
