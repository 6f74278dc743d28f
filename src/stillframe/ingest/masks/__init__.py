"""Masks beside images: read, judged, stored, tiled."""
