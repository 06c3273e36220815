"""Everything around an experiment: DVC, MLflow, pages, and the `ddpm` command."""
