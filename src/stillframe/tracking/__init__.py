"""The MLflow record: a journal on disk, the writer that sends it, lineage; the only importer of mlflow."""
