"""Faces in a picture: find, align, parse, paste."""
