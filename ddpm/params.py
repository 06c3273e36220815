"""The schema of params.yaml: every key, its range and unit, and what must hold between keys.

It holds no defaults: values live in params.yaml alone. `load` reads the file whole and reports all that is
wrong with it at once, before any work.
"""

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from ddpm.errors import UsageError


class ParamsError(UsageError):
    """params.yaml says something that is not allowed; the message names every key, value and rule."""


@dataclass(frozen=True)
class Conflict:
    """A value that the other settings do not allow."""

    key: str  # dotted, as after -S
    value: object
    rule: str

    def __str__(self) -> str:
        return f"{self.key} = {self.value!r}: {self.rule}"


class ConflictError(UsageError):
    """Settings that cannot be used together. Every door formats `conflicts` in its own terms."""

    def __init__(self, conflicts: Sequence[Conflict]) -> None:
        super().__init__("\n  ".join(map(str, conflicts)))
        self.conflicts = conflicts


_FAINTEST = -160.0  # log alpha_bar_T: the square root of what is smaller has no inverse in float32
_TAGGED = ("diffusion", "network")  # sections of several forms
_EXPONENT = re.compile(r"[+-]?\d+(\.\d*)?[eE][+-]?\d+")


def _number(value: object) -> object:
    """Accept `1e-05` as the float it is: YAML 1.1 wants `1.0e-05` and hands the rest over as text."""
    return float(value) if isinstance(value, str) and _EXPONENT.fullmatch(value) else value


Number = Annotated[float, BeforeValidator(_number), Field(allow_inf_nan=False)]
Beta = Annotated[Number, Field(ge=1e-12, lt=1)]  # of a smaller one float64 could not tell 1 - beta from 1
Seed = Annotated[int, Field(ge=0, lt=2**63)]
Count = Annotated[int, Field(ge=1)]
Timesteps = Annotated[int, Field(ge=2, le=100_000)]


class Section(BaseModel):
    """A section of params.yaml: immutable, no conversions, no unknown keys."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True, allow_inf_nan=False)


class Data(Section):
    """Which images, and how they become squares of one size."""

    source: Literal["digits", "mnist", "fashion-mnist", "kmnist", "cifar10", "folder"]
    path: str | None
    digest: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")] | None
    image_size: Annotated[int, Field(ge=2, le=4096)]
    channels: Literal[1, 3]
    fit: Literal["pad", "resize", "crop"]
    seed: Seed | None


class Gaussian(Section):
    """The forward process, Section 2 of the paper."""

    process: Literal["gaussian"]
    timesteps: Timesteps
    schedule: Literal["linear", "quad", "const", "warmup10", "warmup50", "jsd", "cosine", "sigmoid"]
    beta_start: Beta | None
    beta_end: Beta | None
    prediction: Literal["eps", "x_0", "v", "mu"]
    variance: Literal["fixed", "learned", "learned_range"]
    value_range: Annotated[list[Number], Field(min_length=2, max_length=2)]


class Interpolation(Section):
    """x_t = (1 - a) x_0 + a u with a = t / T and u uniform: the process of the Hugging Face course."""

    process: Literal["interpolation"]
    timesteps: Timesteps
    prediction: Literal["x_0"]
    variance: Literal["fixed"]
    value_range: Annotated[list[Number], Field(min_length=2, max_length=2)]


Diffusion = Annotated[Gaussian | Interpolation, Field(discriminator="process")]


class UNetNetwork(Section):
    """The U-Net, Appendix B of the paper."""

    kind: Literal["unet"]
    channels: Count
    multipliers: Annotated[list[Count], Field(min_length=1)]
    blocks: Count
    attention: list[Count]
    heads: Count
    groups: Count
    norm_eps: Annotated[Number, Field(gt=0)]
    dropout: Annotated[Number, Field(ge=0, lt=1)]
    time: bool
    downsample: Literal["asymmetric", "symmetric"]
    conditional: bool


class BasicNetwork(Section):
    """The minimal U-Net of the Hugging Face course: convolutions alone, without time and without labels."""

    kind: Literal["basic"]
    channels: Count
    multipliers: Annotated[list[Count], Field(min_length=1)]
    time: Literal[False]
    conditional: Literal[False]


Network = Annotated[UNetNetwork | BasicNetwork, Field(discriminator="kind")]


class Train(Section):
    """The optimisation, Algorithm 1 of the paper."""

    seed: Seed
    steps: Annotated[int, Field(ge=0)]
    batch_size: Count
    accumulate: Count
    learning_rate: Annotated[Number, Field(gt=0)]
    learning_rate_decay: Literal["constant", "linear", "cosine"]
    warmup: Annotated[int, Field(ge=0)]
    betas: Annotated[list[Annotated[Number, Field(ge=0, lt=1)]], Field(min_length=2, max_length=2)]
    grad_clip: Annotated[Number, Field(gt=0)] | None
    ema_decay: Annotated[Number, Field(ge=0, lt=1)]
    ema_every: Count
    loss: Literal["simple", "vlb", "hybrid"]
    weighting: Literal["none", "snr", "min_snr"]
    min_snr_gamma: Annotated[Number, Field(gt=0)] | None
    horizontal_flip: bool
    label_dropout: Annotated[Number, Field(ge=0, lt=1)] | None
    precision: Literal["fp32", "bf16"]
    snapshots: list[Count]
    init: str | None


class Sample(Section):
    """How images are drawn from the model: Algorithm 2 of the paper, DDIM, or DPM-Solver++."""

    seed: Seed
    count: Count
    batch_size: Count
    sampler: Literal["ancestral", "ddim", "dpm_solver"]
    steps: Count
    spacing: Literal["leading", "trailing", "linspace", "quad"]
    eta: Annotated[Number, Field(ge=0, le=1)] | None
    sigma: Literal["large", "small"] | None
    clip: bool
    guidance: Annotated[Number, Field(ge=0)] | None


class Classifier(Section):
    """The small network whose features measure fidelity where Inception's do not apply."""

    channels: Count
    steps: Count
    batch_size: Count
    learning_rate: Annotated[Number, Field(gt=0)]


class Evaluate(Section):
    """What the samples are measured with."""

    seed: Seed
    extractor: Literal["classifier", "inception"]
    weights: str | None
    likelihood_images: Annotated[int, Field(ge=0)]
    neighbours: Annotated[int, Field(ge=1, le=64)]
    classifier: Classifier | None


class Runtime(Section):
    """Where and how the work is done."""

    device: Annotated[str, Field(pattern=r"^(auto|cpu|cuda(:\d+)?)$")]
    threads: Count
    compile: bool
    deterministic: bool
    launcher: None
    data_root: str
    resume: bool
    checkpoint_every: Count
    preview_every: Count
    log_every: Count


class Tracking(Section):
    """Where MLflow keeps the records."""

    uri: str | None
    experiment: Annotated[str, Field(min_length=1)]
    log_model: bool


class Published(Section):
    """Numbers from elsewhere, which the report shows beside this experiment's."""

    source: Annotated[str, Field(min_length=1)]
    metrics: Annotated[dict[Annotated[str, Field(pattern=r"^[a-z]\w*(\.\w+)+$")], Number], Field(min_length=1)]


class Params(Section):
    """The whole of params.yaml."""

    data: Data
    diffusion: Diffusion
    network: Network
    train: Train
    sample: Sample
    evaluate: Evaluate
    runtime: Runtime
    tracking: Tracking
    published: Published | None


def load(path: Path) -> Params:
    """Read and check params.yaml.

    Raises `ParamsError` with one line for each thing that is wrong, and `FileNotFoundError`.
    """
    import yaml  # here, so that a machine without PyYAML can still use the sections

    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ParamsError(f"{path} is not valid YAML: {error}") from error
    return check(values, str(path))


def check(values: object, name: str = "params.yaml") -> Params:
    """Turn plain values into `Params`, or raise `ParamsError` that names every key, value and rule."""
    if not isinstance(values, dict):
        raise ParamsError(f"{name} must be a mapping with the sections {', '.join(Params.model_fields)}")
    try:
        params = Params.model_validate(values)
    except ValidationError as error:
        raise ParamsError(_message(name, [complaint(dict(e)) for e in error.errors()])) from None
    conflicts = list(_conflicts(params))
    if conflicts:
        raise ParamsError(_message(name, conflicts))
    return params


def _message(name: str, complaints: Sequence[str | Conflict]) -> str:
    return "\n".join([f"{name} is not usable:", *(f"  {line}" for line in complaints)])


def complaint(error: dict[str, Any]) -> str:
    """One line of a pydantic error, of a section or a config: the key as after `-S`, the value, and the rule."""
    section, *inner = map(str, error["loc"])
    if error["type"].startswith("union_tag"):  # the key that chooses between the forms of a section
        inner = [error["ctx"]["discriminator"].strip("'")]
        if error["type"] == "union_tag_not_found":
            error = {**error, "type": "missing"}
        else:
            expected = error["ctx"]["expected_tags"].replace(", ", " or ")
            error = {**error, "input": error["ctx"]["tag"], "msg": f"must be {expected}"}
    elif section in _TAGGED:
        inner = inner[1:]  # after the name of the form
    key = ".".join([section, *inner])
    if error["type"] == "missing":
        return f"{key}: is missing; recipes/default.yaml shows every section and key"
    if error["type"] == "extra_forbidden":
        return f"{key} = {error['input']!r}: there is no such key"
    rule = error["msg"].replace("Input should be ", "must be ").replace(" should ", " must ")
    return f"{key} = {error['input']!r}: {rule[0].lower()}{rule[1:]}"


def _conflicts(params: Params) -> Iterator[str | Conflict]:
    """What is allowed key by key but not together."""
    yield from _data_conflicts(params.data)
    yield from model_conflicts(params.diffusion, params.network, params.data.image_size)
    yield from _train_conflicts(params.train)
    yield from _objective_conflicts(params.train, params.diffusion, params.network)
    yield from sampling_conflicts(params.sample, params.diffusion, params.network)
    yield from _guidance_conflicts(params.train, params.sample)
    yield from _evaluate_conflicts(params.evaluate, params.diffusion)


def _data_conflicts(data: Data) -> Iterator[str]:
    if data.source == "folder":
        if data.path is None:
            yield "data.path = None: source folder needs the folder's or the .zip's path"
        if data.seed is None:
            yield "data.seed = None: source folder needs a seed, for a split where it brings none"
        return
    for key in ("path", "digest"):
        if getattr(data, key) is not None:
            yield f"data.{key} = {getattr(data, key)!r}: must be null unless data.source is folder"
    if (data.source == "digits") != (data.seed is not None):
        yield (
            f"data.seed = {data.seed!r}: must be a number for digits and folder, which are split here, "
            f"and null for sources that bring their own test images"
        )


def model_conflicts(diffusion: Diffusion, network: Network, image_size: int) -> Iterator[str]:
    """What no model can be; also for models that come from elsewhere than params.yaml."""
    yield from _diffusion_conflicts(diffusion)
    yield from _network_conflicts(network, image_size)


def _diffusion_conflicts(diffusion: Diffusion) -> Iterator[str]:
    if diffusion.value_range[0] >= diffusion.value_range[1]:
        yield f"diffusion.value_range = {diffusion.value_range!r}: must be [low, high] with low < high"
    if isinstance(diffusion, Interpolation):
        return
    wrong = list(_beta_conflicts(diffusion))
    yield from wrong or _signal_conflicts(diffusion)


_BETAS = {"const": ("beta_end",), "jsd": (), "cosine": (), "sigmoid": ()}  # else both


def _beta_conflicts(diffusion: Gaussian) -> Iterator[str]:
    """The ends that a schedule has, and no others."""
    wanted = _BETAS.get(diffusion.schedule, ("beta_start", "beta_end"))
    for key in ("beta_start", "beta_end"):
        value = getattr(diffusion, key)
        if (key in wanted) != (value is not None):
            rule = "must be a number" if key in wanted else "must be null"
            yield f"diffusion.{key} = {value!r}: {rule} for the schedule {diffusion.schedule}"
    first, last = diffusion.beta_start, diffusion.beta_end
    if first is not None and last is not None and first > last:
        yield f"diffusion.beta_start = {first!r}: must not be above diffusion.beta_end = {last!r}"


def _signal_conflicts(diffusion: Gaussian) -> Iterator[str]:
    """Something of the image must be left at the end, where it is found by dividing by what is left."""
    if diffusion.schedule == "jsd" and diffusion.prediction == "eps":
        yield "diffusion.prediction = 'eps': nothing of the image is left at the end of jsd; predict x_0, v or mu"
    if diffusion.beta_end is None:
        return
    last, count = diffusion.beta_end, diffusion.timesteps
    # quad lies below linear, and the warm-ups below const.
    first = diffusion.beta_start if diffusion.schedule in ("linear", "quad") and diffusion.beta_start else last
    log_alpha_bar = sum(math.log1p(-(first + (last - first) * step / (count - 1))) for step in range(count))
    if log_alpha_bar < _FAINTEST:
        yield (
            f"diffusion.timesteps = {count}: with beta from {first!r} to {last!r} no float32 holds what is left of the "
            f"image at the end; use fewer timesteps or smaller betas"
        )


def _network_conflicts(network: Network, image_size: int) -> Iterator[str]:
    levels = len(network.multipliers)
    if image_size % 2 ** (levels - 1):
        yield (
            f"data.image_size = {image_size}: the network's {levels} levels (network.multipliers) halve it "
            f"{levels - 1} times, so it must be a multiple of {2 ** (levels - 1)}"
        )
        return
    if isinstance(network, BasicNetwork):
        return
    sizes = [image_size // 2**level for level in range(levels)]
    unknown = [size for size in network.attention if size not in sizes]
    if unknown:
        yield f"network.attention = {network.attention!r}: feature maps have the sizes {sizes}, not {unknown}"
    for multiplier in network.multipliers:
        channels = network.channels * multiplier
        if channels % network.groups:
            yield (
                f"network.groups = {network.groups}: must divide every level's channels, "
                f"and {network.channels} * {multiplier} = {channels} is none of its multiples"
            )
        if channels % network.heads:
            yield f"network.heads = {network.heads}: must divide every level's channels, such as {channels}"
    if network.channels % 2 or network.channels < 4:
        yield f"network.channels = {network.channels}: must be even and at least 4, for the time embedding"


def _train_conflicts(train: Train) -> Iterator[str]:
    if train.batch_size % train.accumulate:
        yield (
            f"train.accumulate = {train.accumulate}: must divide train.batch_size = {train.batch_size} "
            f"into equal micro-batches"
        )
    if train.steps == 0 and train.init is None:
        yield "train.steps = 0: without training, train.init must name the model to evaluate"
    if train.snapshots != sorted(set(train.snapshots)) or any(step > train.steps for step in train.snapshots):
        yield f"train.snapshots = {train.snapshots!r}: must be rising steps, none above train.steps = {train.steps}"
    if (train.weighting == "min_snr") != (train.min_snr_gamma is not None):
        yield f"train.min_snr_gamma = {train.min_snr_gamma!r}: must be a number for min_snr and null otherwise"


def _objective_conflicts(train: Train, diffusion: Diffusion, network: Network) -> Iterator[str]:
    """Losses that do not train what the model has, or that the process does not know."""
    if diffusion.process == "interpolation" and train.loss != "simple":
        yield f"train.loss = {train.loss!r}: must be simple, for the interpolation process has no variational bound"
    elif train.loss == "simple" and diffusion.variance != "fixed":
        yield f"train.loss = 'simple': does not train the {diffusion.variance} variance; use vlb or hybrid"
    elif train.loss == "hybrid" and diffusion.variance == "fixed":
        yield "train.loss = 'hybrid': adds the bound for a learned variance, and diffusion.variance is fixed"
    if train.weighting != "none" and (
        train.loss == "vlb" or diffusion.process == "interpolation" or diffusion.prediction == "mu"
    ):
        yield (
            f"train.weighting = {train.weighting!r}: is for the losses simple and hybrid, the gaussian process "
            f"and the predictions eps, x_0 and v; use none"
        )
    if network.conditional != (train.label_dropout is not None):
        yield (
            f"train.label_dropout = {train.label_dropout!r}: must be a number if network.conditional is true, "
            f"and null otherwise"
        )


def sampling_conflicts(sample: Sample, diffusion: Diffusion, network: Network) -> Iterator[Conflict]:
    """The sampling settings that do not fit a model; also for models that come from elsewhere than params.yaml."""
    timesteps = diffusion.timesteps
    if sample.steps > timesteps:
        yield Conflict("sample.steps", sample.steps, f"must be at most diffusion.timesteps = {timesteps}")
    if sample.steps == 1 and sample.spacing in ("leading", "quad"):
        rule = f"{sample.spacing} spacing would put it at t = 1; use trailing or linspace"
        yield Conflict("sample.steps", 1, rule)
    if (sample.sampler == "ddim") != (sample.eta is not None):
        yield Conflict("sample.eta", sample.eta, f"must be a number for ddim and null for {_others('ddim')}")
    fixed = sample.sampler == "ancestral" and diffusion.variance == "fixed"
    if fixed != (sample.sigma is not None):
        rule = "must be large or small for ancestral with diffusion.variance fixed, and null otherwise"
        yield Conflict("sample.sigma", sample.sigma, rule)
    whole_chain = sample.steps == timesteps and sample.spacing != "quad"
    if sample.sampler == "ancestral" and diffusion.variance == "learned" and not whole_chain:
        rule = (
            f"a learned variance is that of single steps, so ancestral sampling must take all {timesteps} of them, "
            f"with another spacing than quad; use ddim, or learned_range"
        )
        yield Conflict("sample.steps", sample.steps, rule)
    if diffusion.process == "interpolation" and (
        sample.sampler != "ddim" or sample.eta != 0 or sample.spacing not in ("trailing", "linspace")
    ):
        rule = (
            "the interpolation process is sampled by ddim, with eta 0 and trailing or linspace spacing, which begin at "
            "pure noise"
        )
        yield Conflict("sample.sampler", sample.sampler, rule)
    if sample.guidance is not None and not network.conditional:
        yield Conflict("sample.guidance", sample.guidance, "must be null, for the network is not conditional")


def _guidance_conflicts(train: Train, sample: Sample) -> Iterator[str]:
    if train.label_dropout == 0 and sample.guidance != 0:
        yield (
            f"sample.guidance = {sample.guidance!r}: must be 0, the class alone, for with train.label_dropout = 0 "
            f"nothing is trained without its class"
        )


def _others(sampler: str) -> str:
    samplers = get_args(Sample.model_fields["sampler"].annotation)
    return " and ".join(name for name in samplers if name != sampler)


def _evaluate_conflicts(evaluate: Evaluate, diffusion: Diffusion) -> Iterator[str]:
    if evaluate.likelihood_images and diffusion.process == "interpolation":
        yield (
            f"evaluate.likelihood_images = {evaluate.likelihood_images}: must be 0, for the interpolation process "
            f"has no variational bound"
        )
    if evaluate.extractor == "classifier":
        if evaluate.classifier is None:
            yield "evaluate.classifier = None: the classifier extractor needs this section"
        if evaluate.weights is not None:
            yield f"evaluate.weights = {evaluate.weights!r}: must be null unless evaluate.extractor is inception"
    elif evaluate.classifier is not None:
        yield "evaluate.classifier: must be null when evaluate.extractor is inception"
