"""One file, one DVC stage: read the inputs, call, write the outputs."""
