"""Augmentation: policies, offline copies, online on items and on batches."""
