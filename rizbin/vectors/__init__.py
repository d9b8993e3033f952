"""One's own images as vectors: a table that survives kills, searched by words, by images and for places in them."""
