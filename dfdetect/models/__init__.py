"""The neural networks, written with `keras.ops` and `keras.layers` alone."""
