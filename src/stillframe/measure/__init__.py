"""Measures: scores, intervals, calibration; numpy and scikit-learn, no torch."""
