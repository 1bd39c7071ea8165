"""Measures of classification and of detection."""
