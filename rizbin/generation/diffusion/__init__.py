"""Stable Diffusion: drawing step by step, guidance for objects that are forgotten, and a small model of our own."""
