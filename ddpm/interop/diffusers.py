"""Export to and import from folders of diffusers' `DDPMPipeline`, without a dependency on diffusers."""

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import torch
from pydantic import ValidationError
from safetensors.torch import save_file
from torch import Tensor

from ddpm import files
from ddpm.errors import UsageError
from ddpm.interop import scheduler, unet2d, weights
from ddpm.interop.scheduler import SchedulerConfig
from ddpm.interop.unet2d import UNet2DConfig
from ddpm.interop.weights import Imported, refuse, renamed
from ddpm.network.layers import sinusoids
from ddpm.network.modelfile import Description
from ddpm.params import Conflict, Gaussian, Section, UNetNetwork, complaint

_QUERY_KEY_VALUE = (r"\.([qkv])(uery|ey|alue)\.", r".to_\1.")
_NAMES = (  # name here, name in diffusers
    (r"^time\.dense_", "time_embedding.linear_"),
    (r"^first\.", "conv_in."),
    (r"^norm\.", "conv_norm_out."),
    (r"^last\.", "conv_out."),
    (r"^(down|up)\.", r"\1_blocks."),
    (r"^middle\.block_1\.", "mid_block.resnets.0."),
    (r"^middle\.attention\.", "mid_block.attentions.0."),
    (r"^middle\.block_2\.", "mid_block.resnets.1."),
    (r"\.blocks\.", ".resnets."),
    (r"\.(down|up)sample\.", r".\1samplers.0."),
    (r"\.(norm|conv)_([12])\.", r".\1\2."),
    (r"\.time\.", ".time_emb_proj."),
    (r"\.shortcut\.", ".conv_shortcut."),
    (r"\.norm\.", ".group_norm."),
    _QUERY_KEY_VALUE,
    (r"\.output\.", ".to_out.0."),
)
_OLD_NAMES = (  # name in diffusers before version 0.15, name since then
    _QUERY_KEY_VALUE,
    (r"\.proj_attn\.", ".to_out.0."),
)
_WEIGHTS = ("diffusion_pytorch_model.safetensors", "diffusion_pytorch_model.bin")


def export(
    description: Description, state: Mapping[str, Tensor], folder: Path, sigma: str | None = None, clip: bool = True
) -> None:
    """Write a model, given its `state_dict`, as a folder for `DDPMPipeline.from_pretrained`.

    The folder also holds the sampling settings: `clip`, and for a fixed variance `sigma` (default: large). Raises
    `UsageError` that names everything that diffusers cannot express.
    """
    diffusion, network, image_shape = description.diffusion, description.network, description.image_shape
    if not isinstance(diffusion, Gaussian):
        raise UsageError(f"diffusion.process = {diffusion.process!r}: diffusers has no scheduler for it")
    if not isinstance(network, UNetNetwork):
        raise UsageError(f"network.kind = {network.kind!r}: diffusers has no such network")
    conflicts = [*scheduler.export_conflicts(diffusion, sigma), *unet2d.export_conflicts(network, image_shape[1])]
    refuse("diffusers cannot express this model", conflicts)
    if folder.is_file():
        raise UsageError(f"{folder}: a file has that name")
    outputs = len(state["last.bias"])
    with files.replacing(folder / "unet" / _WEIGHTS[0]) as temporary:
        save_file(_exported(network, state), temporary, {"format": "pt"})
    _write(folder / "unet" / "config.json", unet2d.config(network, image_shape, outputs))
    _write(folder / "scheduler" / "scheduler_config.json", scheduler.config(diffusion, sigma, clip))
    components = {"scheduler": ["diffusers", "DDPMScheduler"], "unet": ["diffusers", "UNet2DModel"]}
    _write(folder / "model_index.json", {"_class_name": "DDPMPipeline", **components})


def _exported(network: UNetNetwork, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The weights under diffusers' names; convolutions of size 1 in attention become matrices."""
    state = dict(state)
    if not network.time:  # diffusers always conditions on t, so fold the embedding of t = 0 into the bias
        weight, bias = state["time.dense_1.weight"], state["time.dense_1.bias"]
        first = sinusoids(torch.zeros(1, device=weight.device), network.channels)
        state["time.dense_1.bias"] = bias + (weight * first).sum(1)
        state["time.dense_1.weight"] = torch.zeros_like(weight)
    named = {renamed(name, _NAMES): tensor.cpu() for name, tensor in state.items()}
    return {
        name: (tensor.flatten(1) if name.endswith("weight") and ".to_" in name else tensor).contiguous()
        for name, tensor in named.items()
    }


def _write(path: Path, config: Mapping[str, Any]) -> None:
    files.write_text(path, json.dumps(config, indent=2, sort_keys=True) + "\n")


def read(folder: Path) -> Imported:
    """Read a model from a folder of diffusers, with subfolders or in the early layout with all files at the top.

    Raises `UsageError` that names everything that this project cannot express.
    """
    folders = {part: folder / part if (folder / part).is_dir() else folder for part in ("unet", "scheduler")}
    path = folders["scheduler"] / "scheduler_config.json"
    process = _config(path, scheduler.CLASSES, SchedulerConfig, scheduler.import_conflicts)
    diffusion = scheduler.section(process)
    check = partial(unet2d.import_conflicts, learned=diffusion["variance"] != "fixed")
    unet = _config(folders["unet"] / "config.json", ("UNet2DModel",), UNet2DConfig, check)

    image_shape = (unet.in_channels, unet.sample_size, unet.sample_size)
    description = weights.described(folder, diffusion, unet2d.section(unet), image_shape)
    candidates = [folders["unet"] / name for name in _WEIGHTS]
    path = next(filter(Path.is_file, candidates), candidates[0])
    found = {renamed(name, _OLD_NAMES): tensor for name, tensor in weights.read(path).items()}
    state = weights.adopted(description, found, lambda name: renamed(name, _NAMES), path)
    if unet.flip_sin_to_cos:  # diffusers then puts the cosines first; `sinusoids` puts them last
        state["time.dense_1.weight"] = state["time.dense_1.weight"].roll(unet.block_out_channels[0] // 2, 1)
    return Imported(description, state, scheduler.sampling(process))


_Form = TypeVar("_Form", bound=Section)


def _config(
    path: Path, classes: tuple[str, ...], form: type[_Form], check: Callable[[_Form], Iterable[Conflict]]
) -> _Form:
    """Read the config of one of diffusers' classes without its private keys. Raises `UsageError`."""
    if not path.is_file():
        raise UsageError(f"{path.parent} is not a model of diffusers: {path.name} is missing")
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{path} is not a JSON object: {error}") from None
    if not isinstance(config, dict):
        raise UsageError(f"{path} is not a JSON object")
    if config.get("_class_name") not in classes:
        raise UsageError(f"{path}: _class_name = {config.get('_class_name')!r}: must be {' or '.join(classes)}")
    try:
        found = form.model_validate({key: value for key, value in config.items() if not key.startswith("_")})
        conflicts = list(check(found))
    except ValidationError as error:
        first = {e["loc"][0]: e for e in reversed(error.errors())}  # one error for each key
        conflicts = [_conflict(dict(e)) for e in reversed(first.values())]
    refuse(f"{path} cannot be imported", conflicts)
    return found


def _conflict(error: Mapping[str, Any]) -> Conflict:
    conflict = complaint(error)
    rules = {"missing": "is missing", "extra_forbidden": "is unknown"}
    return replace(conflict, rule=rules.get(error["type"], conflict.rule))
