"""MLflow: one run per experiment."""
