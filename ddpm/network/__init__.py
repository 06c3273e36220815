"""The networks, and the file of a trained model."""
