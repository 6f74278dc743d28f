"""Hydra multirun over the whole DAG: trials in git worktrees, search, the record, the comparison page."""
