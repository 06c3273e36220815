"""Which times of the chain a sampler visits."""

import numpy as np

from ddpm.params import Sample


def timesteps(settings: Sample, timesteps: int) -> list[int]:
    """The times t in 1..T at which the network is evaluated, falling; at most `settings.steps` of them.

    `leading`: every (T // steps)-th from t = 1, as DDIM's code does; it starts below T.
    `trailing`: every (T / steps)-th down from T, so it starts from pure noise.
    `linspace`: evenly from T to 1, both included.
    `quad`: dense near the image: squares of evenly spaced numbers up to sqrt(0.8 T), DDIM Section D.2. Where these
    round to the same time they are one, so a short chain has fewer than `steps` evaluations.
    """
    steps = settings.steps
    match settings.spacing:
        case "leading":
            times = 1 + np.arange(steps) * (timesteps // steps)
        case "trailing":
            times = np.round(np.arange(steps, 0, -1) * (timesteps / steps)).astype(int)
        case "linspace":
            times = 1 + np.round(np.linspace(timesteps - 1, 0, steps)).astype(int)  # halves as diffusers rounds them
        case "quad":
            times = 1 + (np.linspace(0, np.sqrt(0.8 * timesteps), steps) ** 2).astype(int)
    return [int(t) for t in np.unique(times)[::-1]]
