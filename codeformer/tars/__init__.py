"""Inputs and results in tar files as webdataset packs them, for runs that know files alone.

`names` says which tar files are meant and which members belong together; `reading` yields a tar file's samples, one
after the other; `packing` writes one; `place` is both, as a run sees it.
"""
