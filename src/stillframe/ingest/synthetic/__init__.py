"""Data sets that are made from others."""
