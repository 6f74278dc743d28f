"""Augmentation: policies, draws, copies, previews; per item and on the batch."""
