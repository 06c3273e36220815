"""One thin module per stage of dvc.yaml, and the `ddpm` command. All effects live here."""

import os

# torch's CPU threads wait for each other by spinning, for milliseconds unless told otherwise. On a machine with other
# work that starves the very thread they wait for (training ran five times slower), so let them sleep sooner. OpenMP
# reads this when torch is loaded, hence here.
os.environ.setdefault("GOMP_SPINCOUNT", "2000")
