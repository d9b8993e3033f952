"""Words (and an image) in, an image out: diffusion, and gradient ascent on an encoder."""
