"""Experiments: one question a file, answered with numbers, spread and images."""
