"""Sweeps: Hydra multirun over the whole DAG; each trial is a `dvc repro` in a slot of its own."""
