"""Measurements of speed, one command each: `python -m benchmarks --help`."""
