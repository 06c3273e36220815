"""The `ddpm` command."""
