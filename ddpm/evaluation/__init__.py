"""How good samples are: feature extractors, fidelity metrics, nearest neighbours."""
