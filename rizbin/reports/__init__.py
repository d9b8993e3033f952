"""Result pages of an encoder, a detector and a text-to-image model."""
