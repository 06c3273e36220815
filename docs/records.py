"""Read the parameters and metrics of the experiments that DVC keeps in a repository."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from lab.experiment import identity

ROOT = Path(__file__).parent.parent


@dataclass(frozen=True)
class Experiment:
    """The commit that DVC made for one `dvc exp run`."""

    name: str
    params: dict[str, Any]  # params.yaml
    metrics: dict[str, Any]  # reports/metrics.json


def experiments(prefix: str, root: Path = ROOT) -> list[Experiment]:
    """Return the experiments whose names begin with `prefix`, sorted by name."""
    return [
        Experiment(
            name,
            yaml.safe_load(identity.read(commit, "params.yaml", root)),
            json.loads(identity.read(commit, "reports/metrics.json", root)),
        )
        for name, commit in identity.dvc_experiments(root)
        if name.startswith(prefix)
    ]
