"""The prepared data set on disk (Arrow) and the loader that reads whole batches of it."""
