"""Inpainting: where its mask comes from (files, paint, transparency), and the steps of the task.

Three words, each with one meaning on the whole way:

* The *mask* says what is filled: 1 is the network's, 0 stays as it is bit for bit, and between them the two are mixed.
  It belongs to the picture, (H, W) float32; each crop gets its part of it, cut like the crop.
* The *hole* is what the network does not see of a crop, (S, S) bool: every pixel into which something reaches that is
  masked by half or more. It is shown white or smeared over.
* The *region* is the part of a crop that its face fills, (S, S) float32: where crops overlap, each place belongs to
  the face that it is nearest to.
"""
