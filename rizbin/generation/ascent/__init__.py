"""Images from image-text models alone: pixels climb the gradient of what such a model says of them."""
