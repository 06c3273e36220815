"""What DVC records of an experiment, its identity, and its resumable state."""
