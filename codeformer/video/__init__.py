"""Films: streamed, in sync, resumable, without flicker."""
