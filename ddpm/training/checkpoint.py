"""The whole state of training in one safetensors file, so that stopping and resuming changes no result."""

from pathlib import Path

import torch
from torch import Tensor

from ddpm import files
from ddpm.training.curve import LossCurve
from ddpm.training.loop import Learner

FORMAT = "ddpm-state-1"


def save(path: Path, learner: Learner, curve: LossCurve, training: str) -> None:
    """Write weights, average, Adam's moments, the loss curve and the step, atomically.

    The metadata has the step, `training`, a hash of all that determines the training, and the rewinds, if any.
    """
    parts = {
        "network": learner.network.state_dict(),
        "average": learner.average.state_dict(),
        **_moments(learner),
        "curve": curve.state(),
    }
    tensors = {f"{part}/{name}": tensor for part, named in parts.items() for name, tensor in named.items()}
    rewinds = {"rewinds": learner.rewinds} if learner.rewinds else {}
    files.write_tensors(path, tensors, {"format": FORMAT, "step": learner.step, "training": training} | rewinds)


def load(path: Path, learner: Learner, curve: LossCurve) -> None:
    """Load a saved state into `learner` and `curve`.

    Raises as `files.read_tensors` does, and `TensorFileError` for the state of another network.
    """
    file = files.read_tensors(path, FORMAT)
    parts: dict[str, dict[str, Tensor]] = {}
    for key, tensor in file.tensors.items():
        part, name = key.split("/", 1)
        parts.setdefault(part, {})[name] = tensor
    try:
        learner.network.load_state_dict(parts["network"])
        learner.average.load_state_dict(parts["average"])
        learner.step = int(file.metadata["step"])
        learner.rewinds = [(bad, back) for bad, back in file.metadata.get("rewinds", [])]
        _restore_moments(learner, parts)
    except (KeyError, RuntimeError) as error:
        raise files.TensorFileError(f"{path} is the state of another network", path) from error
    curve.restore(parts["curve"])


def _moments(learner: Learner) -> dict[str, dict[str, Tensor]]:
    """Adam's first and second moments by the name of the parameter; empty before the first step."""
    state = learner.optimizer.state
    named = [(name, state[parameter]) for name, parameter in learner.network.named_parameters() if parameter in state]
    return {moment: {name: s[moment] for name, s in named} for moment in ("exp_avg", "exp_avg_sq")}


def _restore_moments(learner: Learner, parts: dict[str, dict[str, Tensor]]) -> None:
    learner.optimizer.state.clear()
    if "exp_avg" not in parts:
        return
    for name, parameter in learner.network.named_parameters():
        first, second = torch.empty_like(parameter), torch.empty_like(parameter)  # in the parameter's memory format
        learner.optimizer.state[parameter] = {
            "step": torch.tensor(float(learner.step), device=parameter.device),
            "exp_avg": first.copy_(parts["exp_avg"][name]),
            "exp_avg_sq": second.copy_(parts["exp_avg_sq"][name]),
        }
