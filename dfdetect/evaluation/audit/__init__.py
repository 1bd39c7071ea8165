"""Audits of data sets before any model sees them: leaks and shortcuts."""
