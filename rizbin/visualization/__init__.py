"""An encoder and images in, images out: what a network attends to, removes, reconstructs, names and tells apart."""
