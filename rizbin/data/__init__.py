"""What goes in: sources of pictures with captions, the image gate, views, tokens, order and the loader."""
