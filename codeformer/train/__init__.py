"""Training in three stages, and evaluation."""
