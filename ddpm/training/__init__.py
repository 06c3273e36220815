"""Objective, training loop, loss curve, checkpoint."""
