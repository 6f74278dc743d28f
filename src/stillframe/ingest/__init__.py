"""From source files to a prepared data set: listing, decoding, validation, duplicates, split."""
