"""Training: the Lightning module, the loop, the optimizer, the record."""
