"""Prepared data sets to batches."""
