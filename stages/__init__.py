"""The six stages of dvc.yaml, one module each; `python -m stages.NAME` loads this file first."""

import os

from lab import stage

# torch's CPU threads wait for each other by spinning, by default for milliseconds. On a machine with other work that
# starves the very thread they wait for (training ran five times slower), so let them sleep sooner. OpenMP reads this
# variable when torch is loaded.
os.environ.setdefault("GOMP_SPINCOUNT", "2000")

# Before a stage imports its code, so that code edited while it runs is noticed.
stage.note_inputs()
