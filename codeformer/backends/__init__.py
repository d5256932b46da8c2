"""Engines that run the network: PyTorch's stands in ``pipeline/restorer.py``, those of exported networks are here.

They all are :class:`~codeformer.backends.base.FaceNetwork` to the pipeline. Nothing here imports PyTorch but to export.
"""
