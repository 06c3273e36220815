"""One thin module per stage of dvc.yaml, and the `ddpm` command. All effects live here."""
