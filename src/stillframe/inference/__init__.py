"""Predictions on files, folders and videos: the ONNX runtime, input sources, writers of results."""
