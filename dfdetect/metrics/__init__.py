"""Metrics of classification, detection and retrieval, on NumPy arrays."""
