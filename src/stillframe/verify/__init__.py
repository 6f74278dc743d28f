"""Provenance: a run is rebuilt from its record alone, and compared with it."""
