"""Evaluation: extractors, fidelity metrics, likelihood, nearest neighbours."""
