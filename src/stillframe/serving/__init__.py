"""A model over HTTP, and as the model that MLflow serves."""
