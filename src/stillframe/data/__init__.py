"""Data: reading, judging, splitting, storing, augmenting images."""
