"""Sampling: the reverse process from noise to images."""
