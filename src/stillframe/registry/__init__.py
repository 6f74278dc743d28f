"""MLflow's model registry: which model is the champion, and proof of how it came about."""
