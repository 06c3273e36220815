"""Everything around an experiment: DVC, MLflow, pages, and the `ddpm` command."""

import os

# torch's CPU threads wait for each other by spinning, by default for milliseconds. On a machine with other work that
# starves the very thread they wait for, so let them sleep sooner. Steps per second of the default training on two
# cores, alone and beside a busy process: 13.9 and 6.2 at 2,000; 16.7 and 4.9 at 5,000; 16.4 and 4.2 at 10,000; 17.2 and
# 1.3 at 100,000. OpenMP reads this variable when torch is loaded, by a stage or by a command.
os.environ.setdefault("GOMP_SPINCOUNT", "5000")
