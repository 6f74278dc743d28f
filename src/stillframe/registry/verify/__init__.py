"""A run rebuilt from its record in a clean clone, and compared number by number."""
