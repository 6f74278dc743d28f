"""What the stages after training ask of an answer: one file a kind."""
