"""Finds human heads in images and says how likely each one is a deepfake."""

__version__ = "0.1.0"
