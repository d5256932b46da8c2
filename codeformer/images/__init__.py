"""Pictures as values: reading, writing, formats, metadata, colour."""
