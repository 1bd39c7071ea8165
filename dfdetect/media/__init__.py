"""Images and clips: files to pixels and back."""
