"""The inputs and the identity of an experiment, the journal of its stages, and resumable state."""
