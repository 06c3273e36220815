"""The parts of `python -m benchmarks gpu`, one module each; every part continues from the rows that it has written."""
