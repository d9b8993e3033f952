"""Images from image-text encoders alone: gradient ascent on the score that such an encoder gives to the image."""
