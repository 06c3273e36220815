"""Objective, moving average, training loop, resumable state."""
