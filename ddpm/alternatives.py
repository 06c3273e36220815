"""The settings of params.yaml that are in use.

To choose an alternative, a user changes one key: the settings of the other alternatives are ignored. The functions
take plain values, which may be incomplete or come from an earlier version.
"""

from collections.abc import Iterator, Mapping, Set
from typing import Any

_SHAPES = {  # image size and channels by source
    "digits": (8, 1),
    "shapes": (32, 3),
    "mnist": (28, 1),
    "fashion-mnist": (28, 1),
    "kmnist": (28, 1),
    "cifar10": (32, 3),
}
_GAUSSIAN_ONLY = {"schedule", "beta_start", "beta_end"}
_UNET_ONLY = {"blocks", "attention", "heads", "groups", "norm_eps", "dropout", "downsample"}
_CHOICES: dict[str, dict[str, tuple[object, ...]]] = {  # setting: the choices that use it
    "data.path": {"data.source": ("folder",)},
    "data.digest": {"data.source": ("folder",)},
    "data.seed": {"data.source": ("digits", "shapes", "folder")},
    "diffusion.beta_start": {"diffusion.schedule": ("linear", "quad", "warmup10", "warmup50")},
    "diffusion.beta_end": {"diffusion.schedule": ("linear", "quad", "const", "warmup10", "warmup50")},
    "train.min_snr_gamma": {"train.weighting": ("min_snr",)},
    "train.rewind_every": {"train.on_divergence": ("rewind",)},
    "train.label_dropout": {"network.conditional": (True,)},
    "sample.eta": {"sample.sampler": ("ddim",)},
    "sample.sigma": {"sample.sampler": ("ancestral",), "diffusion.variance": ("fixed",)},
    "sample.guidance": {"network.conditional": (True,)},
    "evaluate.weights": {"evaluate.extractor": ("inception",)},
    "evaluate.classifier": {"evaluate.extractor": ("classifier",)},
}
_NULLABLE = ("data.digest", "sample.guidance", "evaluate.weights")  # null is one of their values
MISSING = object()  # the value of a missing key


def in_use(values: Mapping[str, Any]) -> dict[str, Any]:
    """Reduce the values of a params.yaml to the settings in use.

    In addition to `resolve`, a setting of an alternative that is not chosen becomes None, and `network.attention`
    keeps only the sizes of feature maps.
    """
    used = resolve(values)
    for key in _CHOICES:
        section, name = key.split(".")
        if _has(used, key) and not _applies(used, key):
            used[section][name] = None
    keys = ("data.image_size", "network.multipliers", "network.attention")
    size, multipliers, attention = (look_up(used, key) for key in keys)
    if isinstance(size, int) and isinstance(multipliers, list) and isinstance(attention, list):
        sizes = [size >> level for level in range(min(len(multipliers), 64))]  # the list may still have any length
        used["network"]["attention"] = [wanted for wanted in attention if wanted in sizes]
    return used


def resolve(values: Mapping[str, Any]) -> dict[str, Any]:
    """Copy the values and set those that follow from others.

    Keys that the chosen process or network does not have are removed. The interpolation process always predicts x_0
    with a fixed variance, and is sampled without noise; the basic network has neither time nor labels. An image size or
    a number of channels that is None is taken from the source.
    """
    resolved = {name: dict(inner) if isinstance(inner, Mapping) else inner for name, inner in values.items()}
    if look_up(resolved, "diffusion.process") == "interpolation":
        own = _without(resolved["diffusion"], _GAUSSIAN_ONLY)
        resolved["diffusion"] = own | {"prediction": "x_0", "variance": "fixed"}
        if _has(resolved, "sample.eta"):
            resolved["sample"]["eta"] = 0.0
    if look_up(resolved, "network.kind") == "basic":
        own = _without(resolved["network"], _UNET_ONLY)
        resolved["network"] = own | {"time": False, "conditional": False}
    for source, shape in _SHAPES.items():
        for key, value in zip(("image_size", "channels"), shape, strict=True):
            if look_up(resolved, "data.source") == source and look_up(resolved, f"data.{key}") is None:
                resolved["data"][key] = value
    return resolved


def rules(values: Mapping[str, Any]) -> Iterator[tuple[str, bool, str]]:
    """Yield for each setting its key, whether a value is missing or unused, and the rule."""
    for key, choices in _CHOICES.items():
        value, applies = look_up(values, key), _applies(values, key)
        when = ", ".join(f"{choice.split('.')[1]} {' or '.join(map(str, names))}" for choice, names in choices.items())
        when = when.replace("conditional True", "conditional models")
        yield key, value is None and applies and key not in _NULLABLE, f"must be set for {when}"
        yield key, _has(values, key) and value is not None and not applies, f"applies only to {when}"


def look_up(values: Mapping[str, Any], key: str) -> Any:
    """The value of a dotted key, or `MISSING`."""
    inner: Any = values
    for name in key.split("."):
        inner = inner.get(name, MISSING) if isinstance(inner, Mapping) else MISSING
    return inner


def _has(values: Mapping[str, Any], key: str) -> bool:
    return look_up(values, key) is not MISSING


def _applies(values: Mapping[str, Any], key: str) -> bool:
    """Whether a setting is in use; keys that `values` does not have are not considered."""
    return all(look_up(values, choice) in (*names, MISSING) for choice, names in _CHOICES[key].items())


def _without(section: Mapping[str, Any], keys: Set[str]) -> dict[str, Any]:
    return {key: value for key, value in section.items() if key not in keys}
