"""Files and paths: atomic writes, digests, questions about paths."""
