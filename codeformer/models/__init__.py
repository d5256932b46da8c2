"""The CodeFormer network, its parts, and safe loading of weights."""
