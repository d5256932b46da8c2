"""Inputs and results in stores that fsspec knows (S3, Google Cloud Storage, ...), for runs that know files alone.

`access` opens a store and says what its errors mean; `inputs` lists, and fetches what is worked on next; `outputs`
mirrors the folder of the results and uploads what is made; `remote` is both, as a run sees it.
"""
