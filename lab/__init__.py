"""Everything around an experiment: DVC, MLflow, pages, and the `ddpm` command."""

import os

# torch's CPU threads wait for each other by spinning, by default for milliseconds. On a machine with other work that
# starves the very thread they wait for (training ran five times slower), so let them sleep sooner. OpenMP reads this
# variable when torch is loaded, by a stage or by a command.
os.environ.setdefault("GOMP_SPINCOUNT", "2000")
