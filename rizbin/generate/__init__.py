"""Words, and a picture if there is one, in; a picture out."""
