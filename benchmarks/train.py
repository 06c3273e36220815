"""Measure images/s of a training step beside other libraries and the limit.

The step is that of the real training loop: batch, noise, loss, gradients, clipping, Adam and the average. diffusers'
UNet2DModel has the same weights; denoising-diffusion-pytorch has its own network of about as many parameters. The
limit is the convolutions and matrix products of the network alone, forward and backward, in the same run; on a GPU it
is the measured peak of large bf16 products.
"""

from collections.abc import Sequence
from functools import partial

import torch

from benchmarks import others, ours, results, speed
from benchmarks.recipes import Size
from ddpm.params import Params


def cases(params: Params, size: Size, device: torch.device, compiled: bool) -> list[speed.Case]:
    """The cases by name, each with a function that makes it."""

    def here(precision: str, mode: str = "eager") -> speed.Case:
        train = params.train.model_copy(update={"precision": precision})
        name = f"ddpm, {precision}" + (f", {mode}" if mode != "eager" else "")
        return name, partial(ours.training, params.model_copy(update={"train": train}), device, mode)

    found: list[speed.Case] = []
    if others.missing("diffusers"):
        results.say("diffusers is left out: pip install diffusers")
    else:
        found += [
            (speed.BASE, partial(others.diffusers_training, params, device, best=False)),
            ("diffusers, bf16, channels last, fused", partial(others.diffusers_training, params, device, best=True)),
        ]
    if others.missing("denoising_diffusion_pytorch"):
        results.say(f"denoising-diffusion-pytorch is left out: pip install {others.LUCIDRAINS}")
    else:
        make = partial(others.lucidrains_training, params, dict(size.lucidrains), device)
        found += [
            ("denoising-diffusion-pytorch, as it ships (fp32)", partial(make, best=False)),
            ("denoising-diffusion-pytorch, bf16, channels last, fused", partial(make, best=True)),
        ]
    found += [here("fp32"), here("bf16")]
    if compiled:
        found.append(here("bf16", "runtime.compile"))
    return found


def run(argv: Sequence[str] | None = None) -> None:
    """Measure the networks one after the other."""
    speed.command(argv, __doc__, "training", cases, None)


if __name__ == "__main__":
    run()
