"""Networks in plain torch, weights, pruning, explanation."""
