"""The chain: encoded bytes to heads to probabilities."""
