"""Shipping: the one file that answers as the trained model does, its variants and their price, predictions with it."""
