"""Models from elsewhere as model files, each with the recipe that evaluates it."""

from pathlib import Path

import yaml

from ddpm import files
from ddpm.interop import diffusers, official
from ddpm.interop.weights import Imported
from ddpm.network import modelfile

_HEAD = """\
# {name}: {count:,} parameters, {channels} x {size} x {size} images, schedule {schedule}, prediction {prediction}.
# In recipes/NAME.yaml, with its images as `data.path`, this evaluates the model: `ddpm recipe NAME`, then `dvc repro`.
"""
_CIFAR10 = "# Where its images are CIFAR-10's: source: cifar10, path: null, seed: null.\n"


class _Recipe(yaml.SafeDumper):
    """Sections as blocks and lists in a line, as params.yaml has them."""


_Recipe.add_representer(
    list, lambda dumper, values: dumper.represent_sequence("tag:yaml.org,2002:seq", values, flow_style=True)
)


def bring(source: Path, out: Path) -> str:
    """Write a model file of a diffusers folder, or of a checkpoint with the official names; return its recipe.

    Raises `UsageError`.
    """
    files.check_writable(out)
    imported = diffusers.read(source) if source.is_dir() else official.read(source)
    modelfile.save(out, imported.description, imported.weights)
    return recipe(imported, out)


def recipe(imported: Imported, model: Path) -> str:
    """What params.yaml must say for the pipeline to sample and measure a model as it is, by the paper's Algorithm 2."""
    description = imported.description
    diffusion, network = description.diffusion.model_dump(), description.network.model_dump()
    channels, size, _ = description.image_shape
    count = sum(weight.numel() for weight in imported.weights.values())
    sections = {
        "data": {
            "source": "folder",  # with no path: refused until its user says which images, for no model tells
            "path": None,
            "digest": None,
            "image_size": size,
            "channels": channels,
            "fit": "crop",
            "seed": 0,
        },
        "diffusion": diffusion,
        "network": network,
        "train": {
            "steps": 0,
            "loss": "simple" if description.diffusion.variance == "fixed" else "hybrid",
            "init": str(model.resolve()),
        },
        "sample": {
            "sampler": "ancestral",
            "steps": description.diffusion.timesteps,
            "spacing": "leading",
            "eta": None,
            **imported.sampling,
        },
    }
    head = _HEAD.format(name=model.name, count=count, channels=channels, size=size, **diffusion)
    if (channels, size) == (3, 32):
        head += _CIFAR10
    return head + yaml.dump(sections, Dumper=_Recipe, sort_keys=False, default_flow_style=False, width=1000)
