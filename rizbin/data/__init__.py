"""Sources of images with captions, boxes and masks; decoding, views, tokens, order and the loader."""
