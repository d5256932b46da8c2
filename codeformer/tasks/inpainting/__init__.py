"""Inpainting: masks, paint, and the steps of the task."""
