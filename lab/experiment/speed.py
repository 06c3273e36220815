"""The seconds that a step of a training took: one file in its state folder, which `ddpm check` reads.

The outputs of a stage are the same bytes everywhere, so they cannot record durations.
"""

import json
import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ddpm.params import Params
from lab.experiment import dvcfile

NAME = "speed.json"
_DATA = ("image_size", "channels")
_TRAIN = ("batch_size", "accumulate", "loss", "precision", "horizontal_flip")
_RUNTIME = ("threads", "compile", "deterministic", "launcher")


@dataclass(frozen=True)
class Speed:
    """The speed of a training with the same work in each step."""

    seconds: float  # for a step, with its share of previews and saved states
    done: int  # steps of this very training that are saved


def record(folder: Path, params: Params, device: str, seconds: float) -> None:
    """Write the mean time of a step on a kind of device to the state folder of a training."""
    from ddpm import files  # imports torch, which `ddpm check` need not wait for

    content = {"work": _work(params), "training": _training(params), "device": device, "seconds": seconds}
    files.write_text(folder / NAME, json.dumps(content, sort_keys=True) + "\n")


def measured(params: Params) -> Speed | None:
    """The speed that was measured last for the work of a training; None if there is none.

    The steps that are done count only if all settings of the training are the same.
    """
    found = []
    for path in (dvcfile.ROOT / ".ckpt").glob(f"*/{NAME}"):
        with suppress(OSError, ValueError, KeyError, TypeError):  # a damaged file is no measurement
            content = json.loads(path.read_text(encoding="utf-8"))
            same_device = params.runtime.device.partition(":")[0] in ("auto", content["device"])
            if content["work"] == _work(params) and same_device:
                same = content["training"] == _training(params)
                done = _saved(path.parent, params.train.steps) if same else 0
                found.append((path.stat().st_mtime, Speed(float(content["seconds"]), done)))
    return max(found, key=lambda one: one[0])[1] if found else None


def _saved(folder: Path, steps: int) -> int:
    """The last step with a state from which a training of `steps` steps can continue; 0 without one."""
    names = (re.fullmatch(r"step-(\d+)\.safetensors", path.name) for path in folder.iterdir())
    return max((int(name[1]) for name in names if name and int(name[1]) <= steps), default=0)


def _work(params: Params) -> dict[str, Any]:
    """The settings that decide how long a step takes."""
    chosen = {"data": _DATA, "train": _TRAIN, "runtime": _RUNTIME}
    sections = {name: {key: getattr(getattr(params, name), key) for key in keys} for name, keys in chosen.items()}
    return _plain({**sections, "network": params.network.model_dump(), "variance": params.diffusion.variance})


def _training(params: Params) -> dict[str, Any]:
    """The settings that decide the result of a training, but for its length."""
    sections = {name: getattr(params, name).model_dump() for name in ("data", "diffusion", "network", "train")}
    if params.train.learning_rate_decay == "constant":
        del sections["train"]["steps"]
    return _plain(sections)


def _plain(values: Mapping[str, Any]) -> dict[str, Any]:
    """The values as a JSON file has them."""
    return dict(json.loads(json.dumps(values)))
