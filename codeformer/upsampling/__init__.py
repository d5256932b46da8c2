"""Super-resolution of pictures and of restored faces."""
