"""Scores, intervals, comparisons and tables from per-sample statistics; numpy, no torch."""
