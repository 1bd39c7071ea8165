"""Whole corpora on Apache Beam: files to shards of results, on one machine or many."""
