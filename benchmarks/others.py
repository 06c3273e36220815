"""The training step and the sampling loop of other libraries as cases of a measurement.

diffusers' U-Net has the weights of this project's network. denoising-diffusion-pytorch has only its own network, which
is chosen with about as many parameters.
"""

import importlib.util
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks import recipes
from ddpm import device as devices
from ddpm import images
from ddpm.interop import diffusers as exchange
from ddpm.params import Params, UNetNetwork

LUCIDRAINS = "denoising-diffusion-pytorch==2.3.4"
_EMA = 0.9999


def missing(package: str) -> bool:
    """Whether a package cannot be imported, by the name of its module."""
    return importlib.util.find_spec(package) is None


def diffusers_unet(
    params: Params, device: torch.device, channels_last: bool, dtype: torch.dtype = torch.float32
) -> tuple[nn.Module, Any]:
    """diffusers' UNet2DModel with the weights of `recipes.network`, and the config of its scheduler."""
    from diffusers import DDPMScheduler, UNet2DModel

    described = recipes.description(params)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        exchange.export(described, recipes.network(described).state_dict(), folder)
        unet = UNet2DModel.from_pretrained(folder / "unet", torch_dtype=dtype)
        scheduler = DDPMScheduler.from_pretrained(folder / "scheduler")
    layout = torch.channels_last if channels_last else torch.contiguous_format
    return unet.to(device).to(memory_format=layout), scheduler.config


def diffusers_training(params: Params, device: torch.device, best: bool) -> Callable[[], object]:
    """A function that takes one step of diffusers' training script for unconditional images.

    As it ships: fp32, contiguous, AdamW without fusion. At its best: bf16 under autocast, channels last, fused.
    """
    from diffusers import DDPMScheduler
    from diffusers.training_utils import EMAModel

    unet, config = diffusers_unet(params, device, channels_last=best)
    scheduler = DDPMScheduler.from_config(config)
    optimizer = torch.optim.AdamW(unet.parameters(), lr=params.train.learning_rate, fused=best)
    average = EMAModel(unet.parameters(), decay=_EMA, foreach=best)
    unet.train()

    def loss_of(x_0: Tensor) -> Tensor:
        eps = torch.randn_like(x_0)
        t = torch.randint(0, scheduler.config.num_train_timesteps, (len(x_0),), device=device)
        with devices.autocast(device, "bf16" if best else "fp32"):
            predicted = unet(scheduler.add_noise(x_0, eps, t), t).sample
        return F.mse_loss(predicted.float(), eps)

    return _stepping(params, device, loss_of, unet, optimizer, lambda: average.step(unet.parameters()))


def diffusers_sampling(
    params: Params, device: torch.device, batch: int, evaluations: int, best: bool
) -> Callable[[], object]:
    """A function that draws a batch of images as diffusers' DDIMPipeline does, without its progress bar.

    As it ships: fp32, contiguous. At its best: bf16 weights, channels last.
    """
    from diffusers import DDIMScheduler

    dtype = torch.bfloat16 if best else torch.float32
    unet, config = diffusers_unet(params, device, best, dtype)
    scheduler = DDIMScheduler.from_config(config)
    unet.eval()
    shape = (batch, params.data.channels, params.data.image_size, params.data.image_size)

    @torch.no_grad()
    def run() -> object:
        scheduler.set_timesteps(evaluations, device=device)
        x = torch.randn(shape, device=device, dtype=dtype)
        for t in scheduler.timesteps:
            x = scheduler.step(unet(x, t).sample, t, x, eta=0.0).prev_sample
        return x

    return run


def _lucidrains(params: Params, arguments: dict[str, Any], device: torch.device, best: bool, evaluations: int) -> Any:
    from denoising_diffusion_pytorch import GaussianDiffusion, Unet, denoising_diffusion_pytorch

    denoising_diffusion_pytorch.tqdm = lambda steps, **_: steps  # its sampling loop shows a progress bar
    assert isinstance(params.network, UNetNetwork)
    unet = Unet(**arguments, dropout=params.network.dropout, flash_attn=best)
    size = params.data.image_size
    diffusion = GaussianDiffusion(unet, image_size=size, objective="pred_noise", sampling_timesteps=evaluations)
    return diffusion.to(device).to(memory_format=torch.channels_last if best else torch.contiguous_format)


def lucidrains_training(
    params: Params, arguments: dict[str, Any], device: torch.device, best: bool
) -> Callable[[], object]:
    """A function that takes one step as denoising-diffusion-pytorch's Trainer does.

    As it ships: fp32, contiguous. At its best: bf16 under autocast, channels last, fused Adam, fused attention.
    """
    from ema_pytorch import EMA

    diffusion = _lucidrains(params, arguments, device, best, evaluations=50)
    optimizer = torch.optim.Adam(diffusion.parameters(), lr=params.train.learning_rate, fused=best)
    average = EMA(diffusion, beta=0.995, update_every=10).to(device)
    diffusion.train()

    def loss_of(x_0: Tensor) -> Tensor:
        with devices.autocast(device, "bf16" if best else "fp32"):
            return diffusion(x_0 / 2 + 0.5)  # it expects values from 0 to 1

    return _stepping(params, device, loss_of, diffusion, optimizer, average.update)


def lucidrains_sampling(
    params: Params, arguments: dict[str, Any], device: torch.device, batch: int, evaluations: int, best: bool
) -> Callable[[], object]:
    """A function that draws a batch of images by denoising-diffusion-pytorch's DDIM."""
    diffusion = _lucidrains(params, arguments, device, best, evaluations).eval()

    def run() -> object:
        with devices.autocast(device, "bf16" if best else "fp32"):
            return diffusion.sample(batch_size=batch)

    return run


def _stepping(
    params: Params,
    device: torch.device,
    loss_of: Callable[[Tensor], Tensor],
    network: nn.Module,
    optimizer: torch.optim.Optimizer,
    update_average: Callable[[], object],
) -> Callable[[], object]:
    """An optimizer step on a random batch of images that are already on the device, with clipping and an average."""
    stored = recipes.dataset(recipes.description(params)).images.to(device)

    def step() -> object:
        chosen = torch.randint(len(stored), (params.train.batch_size,), device=device)
        loss = loss_of(images.to_float(stored[chosen], params.diffusion.value_range))
        loss.backward()
        nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        update_average()
        return loss

    return step
