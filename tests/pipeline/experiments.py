"""Random experiments of tiny size, over all alternatives of params.yaml, and the images of their folders."""

import itertools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from hypothesis import strategies as st
from PIL import Image

from ddpm import params
from tests.data.files import encoded, folder_of, zip_of

Values = dict[str, dict[str, Any]]
Strategy = st.SearchStrategy[Any]
_MODES = ("L", "RGB", "RGBA", "P", "1")
_SMALL_BETAS, _BETAS = (1e-12, 1e-4, 0.01), (0.01, 0.02, 0.5, 0.999)


def experiments() -> st.SearchStrategy[Values]:
    """The contents of a params.yaml that `params.check` accepts."""
    return _experiments().filter(accepted)


def accepted(values: Mapping[str, Any]) -> bool:
    """Whether the schema and the rules accept the values."""
    try:
        params.check(values)
    except params.ParamsError:
        return False
    return True


@st.composite
def _experiments(draw: st.DrawFn) -> Values:
    """The contents of a params.yaml, mostly one that keeps all rules."""
    levels = draw(st.integers(1, 3))
    factor = 2 ** (levels - 1)
    diffusion, network = draw(_diffusion()), draw(_network(levels))
    train = draw(_train(diffusion["process"] == "gaussian" and diffusion["variance"] != "fixed"))
    return {
        "data": draw(_data(factor)),
        "diffusion": diffusion,
        "network": network,
        "train": train,
        "sample": draw(_sample(diffusion)),
        "evaluate": draw(_evaluate()),
        "runtime": draw(_runtime()),
        "tracking": {"uri": None, "experiment": "ddpm", "log_model": False},
        "reported": None,
    }


def _one(*values: object) -> Strategy:
    return st.sampled_from(values)


@st.composite
def _data(draw: st.DrawFn, factor: int) -> dict[str, Any]:
    source = draw(_one("digits", "shapes", "folder"))
    size = draw(st.integers(1, max(1, 12 // factor)).map(lambda number: factor * number).filter(lambda size: size > 1))
    folder = source == "folder"
    return {
        "source": source,
        "path": draw(_one("images", "images.zip")) if folder else None,
        "digest": None,
        "image_size": size if folder or draw(st.booleans()) else None,
        "channels": draw(_one(1, 3) if folder else _one(None, 1, 3)),
        "fit": draw(_one("pad", "resize", "crop")),
        "seed": draw(st.integers(0, 3)),
    }


@st.composite
def _diffusion(draw: st.DrawFn) -> dict[str, Any]:
    return {
        "process": draw(_one("gaussian", "gaussian", "gaussian", "interpolation")),
        "timesteps": draw(st.integers(2, 12)),
        "value_range": draw(_one([-1.0, 1.0], [0.0, 1.0], [-0.1, 0.1], [2.0, 3.0], [0.0, 255.0])),
        "schedule": draw(_one("linear", "quad", "const", "warmup10", "warmup50", "jsd", "cosine", "sigmoid")),
        "beta_start": draw(_one(*_SMALL_BETAS)),
        "beta_end": draw(_one(*_BETAS)),
        "prediction": draw(_one("eps", "x_0", "v", "mu")),
        "variance": draw(_one("fixed", "fixed", "learned", "learned_range")),
    }


@st.composite
def _network(draw: st.DrawFn, levels: int) -> dict[str, Any]:
    channels = draw(_one(4, 6, 8))
    divisors = [number for number in range(1, channels + 1) if channels % number == 0]
    return {
        "kind": draw(_one("unet", "unet", "basic")),
        "channels": channels,
        "multipliers": draw(st.lists(st.integers(1, 3), min_size=levels, max_size=levels)),
        "blocks": draw(st.integers(1, 2)),
        "attention": draw(st.lists(_one(1, 2, 3, 4, 8), max_size=2, unique=True)),
        "heads": draw(_one(*divisors)),
        "groups": draw(_one(*divisors)),
        "norm_eps": draw(_one(1e-6, 1e-5, 1.0)),
        "dropout": draw(_one(0.0, 0.1, 0.9)),
        "time": draw(st.booleans()),
        "downsample": draw(_one("asymmetric", "symmetric")),
        "conditional": draw(st.booleans()),
    }


@st.composite
def _train(draw: st.DrawFn, learned: bool) -> dict[str, Any]:
    steps, accumulate = draw(st.integers(1, 6)), draw(st.integers(1, 3))
    loss = draw(_one("vlb", "hybrid") if learned else _one("simple", "simple", "vlb"))
    return {
        "seed": draw(st.integers(0, 3)),
        "steps": steps,
        "batch_size": accumulate * draw(st.integers(1, 4)),
        "accumulate": accumulate,
        "learning_rate": draw(_one(1e-12, 1e-4, 1e-2)),
        "learning_rate_decay": draw(_one("constant", "linear", "cosine")),
        "warmup": draw(_one(0, 1, 10)),
        "betas": draw(_one([0.9, 0.999], [0.0, 0.0], [0.5, 0.99])),
        "grad_clip": draw(_one(None, 1.0, 1e-9)),
        "ema_decay": draw(_one(0.0, 0.5, 0.9999)),
        "ema_every": draw(_one(1, 2, 10)),
        "loss": loss,
        "weighting": draw(_one("none", "none", "snr", "min_snr")),
        "min_snr_gamma": draw(_one(0.1, 5.0)),
        "horizontal_flip": draw(st.booleans()),
        "label_dropout": draw(_one(0.0, 0.1, 0.9)),
        "precision": draw(_one("fp32", "bf16")),
        "snapshots": sorted(draw(st.lists(st.integers(1, steps), max_size=2, unique=True))),
        "on_divergence": draw(_one("stop", "rewind")),
        "rewind_every": draw(_one(1, 2, 10)),
        "init": None,
    }


@st.composite
def _sample(draw: st.DrawFn, diffusion: Mapping[str, Any]) -> dict[str, Any]:
    gaussian = diffusion["process"] == "gaussian"
    sampler = draw(_one("ancestral", "ddim", "dpm_solver")) if gaussian else "ddim"
    return {
        "seed": draw(st.integers(0, 3)),
        "count": draw(_one(1, 2, 5, 20)),
        "batch_size": draw(_one(1, 16, 40)),
        "sampler": sampler,
        "steps": draw(_one(1, 2, diffusion["timesteps"])),
        "spacing": draw(_one("leading", "trailing", "linspace", "quad") if gaussian else _one("trailing", "linspace")),
        "eta": draw(_one(0.0, 0.5, 1.0)),
        "sigma": draw(_one("large", "small")),
        "clip": draw(st.booleans()),
        "guidance": draw(_one(None, 0.0, 0.5)),
        "precision": draw(_one("fp32", "bf16")),
    }


@st.composite
def _evaluate(draw: st.DrawFn) -> dict[str, Any]:
    return {
        "seed": draw(st.integers(0, 3)),
        "extractor": "classifier",
        "weights": None,
        "likelihood_images": draw(_one(0, 0, 1, 3)),
        "neighbours": draw(_one(1, 8, 64)),
        "classifier": {
            "channels": draw(st.integers(1, 3)),
            "steps": draw(st.integers(1, 5)),
            "batch_size": draw(_one(1, 2, 8)),
            "learning_rate": draw(_one(1e-6, 1e-2)),
        },
    }


@st.composite
def _runtime(draw: st.DrawFn) -> dict[str, Any]:
    return {
        "device": "cpu",
        "threads": 1,
        "compile": draw(_one(False, "auto")),
        "deterministic": draw(st.booleans()),
        "launcher": None,
        "data_root": "raw",
        "resume": draw(st.booleans()),
        "checkpoint_every": draw(st.integers(1, 4)),
        "keep_states": draw(st.integers(1, 3)),
        "stall_minutes": draw(_one(None, 60)),
        "preview_every": draw(st.integers(1, 4)),
        "log_every": draw(st.integers(1, 4)),
    }


def write_images(where: Path, seed: int) -> None:
    """Write a folder or a .zip file of 2 to 8 images in two classes, of several sizes and modes, perhaps in splits."""
    draw = np.random.default_rng(seed)
    splits = ("train/", "test/") if draw.random() < 0.5 else ("",)
    count = int(draw.integers(1, 5 - len(splits)))
    files = {}
    for number, (split, label, index) in enumerate(itertools.product(splits, "ab", range(count))):
        height, width = draw.integers(1, 20, 2)
        pixels = draw.integers(0, 256, (height, width, 3), dtype=np.uint8)
        picture = Image.fromarray(pixels).convert(_MODES[number % len(_MODES)])
        files[f"{split}{label}/{index}.png"] = encoded(picture)
    where.parent.mkdir(parents=True)
    (zip_of if where.suffix == ".zip" else folder_of)(where, files)
