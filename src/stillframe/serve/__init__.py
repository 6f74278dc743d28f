"""Serving: an exported file behind HTTP, and as a model that MLflow serves."""
