"""Export a model to diffusers."""

from pathlib import Path

from ddpm.interop import diffusers
from ddpm.network import modelfile
from ddpm.sampling.options import Options


def export(model: Path, folder: Path, options: Options) -> None:
    """Write a model file as a diffusers folder, whose scheduler samples with the options `sigma` and `clip`.

    Raises `UsageError` if diffusers cannot express the model.
    """
    loaded = modelfile.load(model)
    diffusers.export(loaded.description, loaded.network.state_dict(), folder, options.sigma, options.clip)
