"""Detects human heads in images and estimates whether each one is a deepfake."""

__version__ = "0.1.0"
