"""The rules between keys of params.yaml.

The functions take the sections as plain values of the settings in use, whose types are checked already.
"""

import math
from collections.abc import Iterator, Mapping
from typing import Any

Rule = tuple[str, object, str]  # the dotted key of a value, whether the value breaks the rule, and the rule
Values = Mapping[str, Mapping[str, Any]]  # the sections by name


def of_experiment(values: Values) -> Iterator[Rule]:
    """The rules for all sections."""
    yield from of_model(values)
    yield from _training(values)
    yield from of_sampling(values)
    yield from _evaluation(values)


def of_model(values: Values) -> Iterator[Rule]:
    """The rules for the sections diffusion and network, and for the size of the images."""
    diffusion, network, image_size = values["diffusion"], values["network"], values["data"]["image_size"]
    low, high = diffusion["value_range"]
    apart = "must be [low, high] with low < high, and these at least 0.001 apart"  # float32 has 24 bits
    yield "diffusion.value_range", high - low < 0.001, apart
    if diffusion["process"] == "gaussian":
        yield from _schedule(diffusion)
    multipliers, first = network["multipliers"], network["channels"]
    factor = 2 ** (len(multipliers) - 1)
    halved = f"must be a multiple of {factor}, because the levels of network.multipliers = {multipliers} halve it"
    yield "data.image_size", image_size % factor, halved
    if network["kind"] == "basic":
        no_outputs = "must be fixed, because the basic network has no outputs for a variance"
        yield "diffusion.variance", diffusion["variance"] != "fixed", no_outputs
        return
    yield "network.channels", first % 2 or first < 4, "must be even and at least 4, for the time embedding"
    for key, parts in (("network.groups", network["groups"]), ("network.heads", network["heads"])):
        rest = [first * multiplier for multiplier in multipliers if first * multiplier % parts]
        yield key, rest, f"must divide the channels of every level, but does not divide {rest}"
    single = image_size == factor > 1 and network["groups"] in (first * multiplier for multiplier in multipliers[-2:])
    one_value = "must be less than the channels of the last two levels: their feature maps are reduced to one pixel"
    yield "network.groups", single, f"{one_value}, and a single value cannot be normalised"


def _schedule(diffusion: Mapping[str, Any]) -> Iterator[Rule]:
    no_signal = diffusion["schedule"] == "jsd" and diffusion["prediction"] == "eps"
    yield "diffusion.prediction", no_signal, "must be x_0, v or mu, because jsd leaves no signal at t = T"
    first, last, count = diffusion["beta_start"], diffusion["beta_end"], diffusion["timesteps"]
    if last is None:
        return
    falling = first is not None and first > last
    yield "diffusion.beta_start", falling, f"must not be above diffusion.beta_end = {last!r}"
    if first is None or diffusion["schedule"] not in ("linear", "quad"):
        first = last  # quad lies below linear, and the warm-ups below const
    log_alpha_bar = sum(math.log1p(-(first + (last - first) * step / (count - 1))) for step in range(count))
    faint = not falling and log_alpha_bar < -160  # float32 has no 1 / sqrt(alpha_bar_T)
    rule = f"with beta from {first!r} to {last!r} too little signal is left at t = T; use fewer or smaller betas"
    yield "diffusion.timesteps", faint, rule


def _training(values: Values) -> Iterator[Rule]:
    train, diffusion = values["train"], values["diffusion"]
    parts = f"must divide train.batch_size = {train['batch_size']} into equal micro-batches"
    yield "train.accumulate", train["batch_size"] % train["accumulate"], parts
    no_model = train["steps"] == 0 and train["init"] is None
    yield "train.steps", no_model, "without training, train.init must name the model to evaluate"
    rising, most = sorted(set(train["snapshots"])), max(train["snapshots"], default=0)
    steps = f"must be increasing and at most train.steps = {train['steps']}"
    yield "train.snapshots", train["snapshots"] != rising or most > train["steps"], steps
    gaussian, fixed = diffusion["process"] == "gaussian", diffusion["variance"] == "fixed"
    no_bound = "must be simple, because the interpolation process has no variational bound"
    yield "train.loss", not gaussian and train["loss"] != "simple", no_bound
    untrained = f"does not train the {diffusion['variance']} variance; use vlb or hybrid"
    yield "train.loss", train["loss"] == "simple" and not fixed, untrained
    not_learned = "adds the bound for a learned variance, but diffusion.variance is fixed"
    yield "train.loss", train["loss"] == "hybrid" and fixed and gaussian, not_learned
    weighted = train["loss"] != "vlb" and gaussian and diffusion["prediction"] != "mu"
    errors = (
        "applies only to the losses simple and hybrid, process gaussian and the predictions eps, x_0 and v; use none"
    )
    yield "train.weighting", train["weighting"] != "none" and not weighted, errors


def of_sampling(values: Values) -> Iterator[Rule]:
    """The rules for the sections sample and diffusion."""
    sample, diffusion = values["sample"], values["diffusion"]
    steps, spacing, timesteps = sample["steps"], sample["spacing"], diffusion["timesteps"]
    yield "sample.steps", steps > timesteps, f"must be at most diffusion.timesteps = {timesteps}"
    at_1 = steps == 1 and spacing in ("leading", "quad")
    yield "sample.steps", at_1, f"with {spacing} spacing the only step is t = 1; use trailing or linspace"
    if sample["sampler"] == "ancestral" and diffusion["variance"] == "learned":
        single = f"a learned variance applies to single steps: use all {timesteps} without quad spacing, or ddim"
        yield "sample.steps", steps != timesteps or spacing == "quad", f"{single} or learned_range"
    if diffusion["process"] == "interpolation":
        ddim = sample["sampler"] == "ddim"
        yield "sample.sampler", not ddim, "must be ddim for the interpolation process"
        yield "sample.eta", ddim and sample["eta"] != 0, "must be 0 for the interpolation process"
        pure_noise = "must be trailing or linspace for the interpolation process, to begin at pure noise"
        yield "sample.spacing", spacing not in ("trailing", "linspace"), pure_noise


def _evaluation(values: Values) -> Iterator[Rule]:
    train, sample, evaluate = values["train"], values["sample"], values["evaluate"]
    if evaluate["classifier"]:
        single = evaluate["classifier"]["batch_size"] == 1 and values["data"]["image_size"] <= 4
        no_spread = "must be at least 2 for data.image_size up to 4, because its batch normalisation needs two values"
        yield "evaluate.classifier.batch_size", single, no_spread
    no_null_label = train["label_dropout"] == 0 and sample["guidance"] != 0
    rule = "must be 0 (no guidance): with train.label_dropout = 0 no image is trained without its class"
    yield "sample.guidance", no_null_label, rule
    no_bound = evaluate["likelihood_images"] and values["diffusion"]["process"] == "interpolation"
    yield (
        "evaluate.likelihood_images",
        no_bound,
        "must be 0, because the interpolation process has no variational bound",
    )
