"""Measure images/s of one network evaluation inside the sampling loop, beside other libraries and the limit.

Each call draws a batch by DDIM without noise in a few evaluations; the speed is images times evaluations per second.
diffusers' UNet2DModel has the same weights and its own DDIM scheduler; denoising-diffusion-pytorch has its own network
of about as many parameters. The limit is the convolutions and matrix products of the network alone, in the same run;
on a GPU it is the measured peak of large bf16 products.
"""

from collections.abc import Sequence
from functools import partial

import torch

from benchmarks import others, ours, results, speed
from benchmarks.recipes import Size
from ddpm.params import Params

EVALUATIONS = 4


def cases(params: Params, size: Size, device: torch.device, compiled: bool) -> list[speed.Case]:
    """The cases by name, each with a function that makes it."""
    batch = params.train.batch_size

    def here(precision: str, mode: str = "eager") -> speed.Case:
        name = f"ddpm, {precision}" + (f", {mode}" if mode != "eager" else "")
        return name, partial(ours.sampling, params, device, batch, EVALUATIONS, precision, mode)

    found: list[speed.Case] = []
    if others.missing("diffusers"):
        results.say("diffusers is left out: pip install diffusers")
    else:
        make = partial(others.diffusers_sampling, params, device, batch, EVALUATIONS)
        found += [(speed.BASE, partial(make, best=False))]
        found += [("diffusers, bf16 weights, channels last", partial(make, best=True))]
    if others.missing("denoising_diffusion_pytorch"):
        results.say(f"denoising-diffusion-pytorch is left out: pip install {others.LUCIDRAINS}")
    else:
        make = partial(others.lucidrains_sampling, params, dict(size.lucidrains), device, batch, EVALUATIONS)
        found += [("denoising-diffusion-pytorch, as it ships (fp32)", partial(make, best=False))]
        found += [("denoising-diffusion-pytorch, bf16, channels last", partial(make, best=True))]
    found += [here("fp32"), here("bf16")]
    if compiled:
        found.append(here("bf16", "runtime.compile"))
    return found


def run(argv: Sequence[str] | None = None) -> None:
    """Measure the networks one after the other."""
    speed.command(argv, __doc__, "network evaluations while sampling", cases, EVALUATIONS)


if __name__ == "__main__":
    run()
