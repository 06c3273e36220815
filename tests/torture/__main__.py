"""The command line: `python -m tests.torture --kills 100 --seed 0`."""

import argparse
import shutil
import sys
import tempfile
from pathlib import Path

from tests.torture.killing import RunError
from tests.torture.rounds import torture


def main() -> None:
    """Kill a small experiment, and exit with 1 if any result differs from that of an undisturbed run."""
    parser = argparse.ArgumentParser(prog="python -m tests.torture", description=torture.__doc__)
    parser.add_argument("--kills", type=int, default=100, help="number of kills (default: 100)")
    parser.add_argument("--seed", type=int, default=0, help="of the moments and the signals (default: 0)")
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="torture-"))
    try:
        outcome = torture(folder, options.kills, options.seed)
    except RunError as error:
        sys.exit(f"{error}\nthe projects are kept in {folder}")
    print(outcome.text())
    if outcome.differences:
        sys.exit(f"the projects are kept in {folder}")
    shutil.rmtree(folder)


if __name__ == "__main__":
    main()
