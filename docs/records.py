"""What DVC keeps of experiments in this repository: their parameters and metrics, by name."""

import json
import subprocess
from dataclasses import dataclass
from typing import Any

import yaml


@dataclass(frozen=True)
class Experiment:
    """One `dvc exp run`, as it was committed."""

    name: str
    params: dict[str, Any]  # params.yaml
    metrics: dict[str, Any]  # reports/metrics.json


def experiments(prefix: str) -> list[Experiment]:
    """The experiments whose names begin with `prefix`, in the order of their names."""
    refs = _git("for-each-ref", "--format=%(refname)", "refs/exps").split()
    found = [ref for ref in refs if ref.split("/")[-1].startswith(prefix)]
    return sorted((_read(ref) for ref in found), key=lambda experiment: experiment.name)


def _read(ref: str) -> Experiment:
    return Experiment(
        ref.split("/")[-1],
        yaml.safe_load(_git("show", f"{ref}:params.yaml")),
        json.loads(_git("show", f"{ref}:reports/metrics.json")),
    )


def _git(*arguments: str) -> str:
    return subprocess.run(["git", *arguments], capture_output=True, text=True, check=True).stdout
