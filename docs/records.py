"""What DVC keeps of experiments in a repository: their parameters and metrics, by name."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from lab.experiment import identity

ROOT = Path(__file__).parent.parent


@dataclass(frozen=True)
class Experiment:
    """One `dvc exp run`, as DVC committed it."""

    name: str
    params: dict[str, Any]  # params.yaml
    metrics: dict[str, Any]  # reports/metrics.json


def experiments(prefix: str, root: Path = ROOT) -> list[Experiment]:
    """The experiments whose names begin with `prefix`, in the order of their names."""
    return [
        Experiment(
            name,
            yaml.safe_load(identity.read(commit, "params.yaml", root)),
            json.loads(identity.read(commit, "reports/metrics.json", root)),
        )
        for name, commit in identity.dvc_experiments(root)
        if name.startswith(prefix)
    ]
