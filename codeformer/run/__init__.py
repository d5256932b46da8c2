"""A run over many inputs: what there is to do, what is done, what failed, and the exit code."""
