"""What DVC keeps of experiments in a repository: their parameters and metrics, by name."""

import json
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parent.parent


@dataclass(frozen=True)
class Experiment:
    """One `dvc exp run`, as DVC committed it."""

    name: str
    params: dict[str, Any]  # params.yaml
    metrics: dict[str, Any]  # reports/metrics.json


def experiments(prefix: str, root: Path = ROOT) -> list[Experiment]:
    """The experiments whose names begin with `prefix`, in the order of their names."""
    refs = _git(root, "for-each-ref", "--format=%(refname)", "refs/exps").split()
    named = sorted((ref.rpartition("/")[2], ref) for ref in refs)
    return [
        Experiment(
            name,
            yaml.safe_load(_git(root, "show", f"{ref}:params.yaml")),
            json.loads(_git(root, "show", f"{ref}:reports/metrics.json")),
        )
        for name, ref in named
        if name.startswith(prefix)
    ]


def _git(root: Path, *arguments: str) -> str:
    return subprocess.run(["git", "-C", str(root), *arguments], capture_output=True, text=True, check=True).stdout
