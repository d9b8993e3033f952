"""Words (and a picture) in, a picture out: diffusion, and ascent on an encoder's own gradient."""
