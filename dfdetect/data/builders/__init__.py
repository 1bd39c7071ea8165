"""Shared code of the TFDS builders: tasks in, records and an account of them out."""
