"""Models to graph files."""
