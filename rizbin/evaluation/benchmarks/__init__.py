"""Published measurements by name: one file a protocol, each over the layout in which its data are handed out."""
