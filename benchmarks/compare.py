"""Measure the duration of `ddpm compare` over many experiments: seconds of the whole process, with a new store.

python -m benchmarks.compare --experiments 500
"""

import argparse
import json
import os
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from mlflow.entities import Metric, Param, RunTag
from mlflow.tracking import MlflowClient

from ddpm.params import load
from lab.experiment import dvcfile, identity
from lab.tracking import store
from lab.tracking.run import FINGERPRINT

ROOT = Path(__file__).parent.parent
POINTS = 30  # of each loss curve


def fill(root: Path, experiments: int) -> None:
    """Make a repository with a store of experiments that differ in a few parameters, as after a search."""
    for name in ("dvc.yaml", "params.yaml"):
        shutil.copy(ROOT / name, root)
    (root / "recipes").mkdir()
    dvcfile.ROOT = root
    settings = load(root / "params.yaml").tracking
    client = MlflowClient(store.uri(settings))
    group = client.create_experiment(settings.experiment)
    generator = random.Random(0)
    for number in range(experiments):
        write(client, group, number, generator)


def write(client: MlflowClient, group: str, number: int, generator: random.Random) -> None:
    """Log a finished run with every parameter, every metric and a loss curve."""
    run = client.create_run(group, run_name=f"experiment-{number}", tags={FINGERPRINT: f"{number:08x}" * 8})
    changed = {
        "train.learning_rate": generator.choice((1e-4, 5e-4, 1e-3)),
        "train.steps": generator.choice((1000, 2500)),
        "sample.eta": generator.choice((0.0, 0.5, 1.0)),
        "sample.steps": generator.choice((20, 50, 100)),
        "train.seed": number,
    }
    params = {**identity.params(ROOT), **changed}
    now = run.info.start_time
    results = json.loads((ROOT / "reports/metrics.json").read_text())
    measured = {
        f"{section}.{key}": value * generator.uniform(0.8, 1.2)
        for section in ("classifier", "neighbours")
        for key, value in results[section].items()
    }
    measured |= {f"more.{number}": generator.random() for number in range(25 - len(measured))}
    metrics = [Metric(key, value, now, 0) for key, value in measured.items()]
    metrics += [Metric("train/loss", 1 / step, now + step, step) for step in range(1, POINTS + 1)]
    client.log_batch(
        run.info.run_id,
        metrics,
        [Param(key, value if isinstance(value, str) else json.dumps(value)) for key, value in params.items()],
        [RunTag("ddpm.extractor", "e" * 64), RunTag("mlflow.source.name", "dvc.yaml")],
    )
    client.set_terminated(run.info.run_id)


def seconds(root: Path, *options: str) -> float:
    """The duration of one `ddpm compare`, from the start of its process to its end."""
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    environment.pop("MLFLOW_TRACKING_URI", None)
    start = time.perf_counter()
    command = [sys.executable, "-m", "lab.commands.app", "compare", *options]
    subprocess.run(command, cwd=root, env=environment, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - start


def run(argv: Sequence[str] | None = None) -> None:
    """Fill a store, time the command, and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--experiments", type=int, default=500)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--options", nargs="*", default=[], help="without their dashes, as html=page.html")
    arguments = parser.parse_args(argv)
    options = [f"--{option}" for option in arguments.options]
    with tempfile.TemporaryDirectory() as folder:
        fill(Path(folder), arguments.experiments)
        taken = [seconds(Path(folder), *options) for _ in range(arguments.rounds)]
    spread = f"{min(taken):.2f} to {max(taken):.2f}"
    print(f"{arguments.experiments} experiments: {statistics.median(taken):.2f} s, {spread}")


if __name__ == "__main__":
    run()
