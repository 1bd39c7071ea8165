"""Models measured on data sets."""
