"""Networks as ONNX files, for other engines and other programs: the graphs, the file, and its check."""
