"""Image sources, the packed dataset file, and the batches of training."""
