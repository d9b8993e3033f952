"""An encoder and pictures in, pictures out: what a network attends to, drops, makes up, names and tells apart."""
