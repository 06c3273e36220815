"""Image sources, the packed dataset file, and the batch of every training step."""
