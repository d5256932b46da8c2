"""Scratches, creases, dust and torn corners of prints: where they are, and what lies under them."""
