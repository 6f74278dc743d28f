"""The exported file: ONNX graph, smaller variants, parity with the trained model."""
