"""The promotion gate: a model becomes the champion by a file of rules, and only so."""
