"""Convert models from elsewhere to model files, and print the recipe that evaluates each."""

from pathlib import Path

import yaml

from ddpm import files, params
from ddpm.interop import diffusers, official
from ddpm.interop.weights import Imported
from ddpm.network import modelfile
from lab.commands.data import stored_path

_HEAD = """\
# {name}: {count:,} parameters, {channels} x {size} x {size} images, schedule {schedule}, prediction {prediction}.
# To evaluate the model, save this as recipes/NAME.yaml and set `data.path` to its images, as `ddpm data PATH --dry-run`
# prints it. Then run `ddpm recipe NAME` and `dvc repro`.
"""
_CIFAR10 = "# If its images are CIFAR-10's, set `data.source` to cifar10.\n"


class _Recipe(yaml.SafeDumper):
    """Writes sections as blocks and lists in one line, as in params.yaml."""


_Recipe.add_representer(
    list, lambda dumper, values: dumper.represent_sequence("tag:yaml.org,2002:seq", values, flow_style=True)
)


def bring(source: Path, out: Path, repository: Path | None) -> str:
    """Convert a folder of diffusers, or a checkpoint with the official names, to a model file; return its recipe.

    `repository` is the experiment repository that the recipe is for, if it is known. Raises `UsageError`.
    """
    # A recipe sets no data_root, so that of the default recipe holds.
    root = repository and repository / params.load(repository / "recipes/default.yaml").runtime.data_root
    files.check_writable(out)
    imported = diffusers.read(source) if source.is_dir() else official.read(source)
    modelfile.save(out, imported.description, imported.weights)
    return recipe(imported, out, root)


def recipe(imported: Imported, model: Path, data_root: Path | None) -> str:
    """The recipe by which the pipeline samples an imported model by Algorithm 2 of the paper, and measures it.

    It names a model below `data_root` relative to that folder, and any other by its absolute path.
    """
    description = imported.description
    diffusion = description.diffusion.model_dump(exclude_none=True)
    channels, size, _ = description.image_shape
    count = sum(weight.numel() for weight in imported.weights.values())
    sections = {
        "data": {
            "source": "folder",
            "path": None,  # the user must set it, because a model file does not name its images
            "image_size": size,
            "channels": channels,
            "fit": "crop",
        },
        "diffusion": diffusion,
        "network": description.network.model_dump(),
        "train": {
            "steps": 0,
            "loss": "simple" if description.diffusion.variance == "fixed" else "hybrid",
            "init": stored_path(model, data_root) if data_root else str(model.resolve()),
        },
        "sample": {
            "sampler": "ancestral",
            "steps": description.diffusion.timesteps,
            "spacing": "leading",
            **imported.sampling,
        },
    }
    head = _HEAD.format(name=model.name, count=count, channels=channels, size=size, **diffusion)
    if (channels, size) == (3, 32):
        head += _CIFAR10
    return head + yaml.dump(sections, Dumper=_Recipe, sort_keys=False, default_flow_style=False, width=1000)
