"""params.yaml is checked whole, and its errors name key, value and rule."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import ValidationError

from ddpm import params

COMMITTED = Path(__file__).parents[1] / "params.yaml"

LEARNED = {"diffusion.variance": "learned", "train.loss": "hybrid"}
ANCESTRAL = {"sample.sampler": "ancestral", "sample.eta": None}
JSD = {"diffusion.schedule": "jsd", "diffusion.beta_start": None, "diffusion.beta_end": None}
INTERPOLATION = {
    "process": "interpolation",
    "timesteps": 1000,
    "prediction": "x_0",
    "variance": "fixed",
    "value_range": [0.0, 1.0],
}
COURSE = {"diffusion": INTERPOLATION, "sample.eta": 0.0}
BASIC = {"kind": "basic", "channels": 32, "multipliers": [1, 2, 2], "time": False, "conditional": False}


def changed(changes: dict[str, Any]) -> dict[str, Any]:
    """The committed values with some of them, by dotted keys, set to others."""
    values: dict[str, Any] = yaml.safe_load(COMMITTED.read_text(encoding="utf-8"))
    for key, value in changes.items():
        *sections, last = key.split(".")
        target = values
        for section in sections:
            target = target[section]
        target[last] = value
    return values


def complaints(changes: dict[str, Any]) -> list[str]:
    """The lines of the error that the changes cause, without the opening one."""
    with pytest.raises(params.ParamsError) as caught:
        params.check(changed(changes))
    first, *lines = str(caught.value).splitlines()
    assert first == "params.yaml is not usable:"
    return [line.strip() for line in lines]


def test_the_committed_file_is_usable() -> None:
    loaded = params.load(COMMITTED)
    assert loaded.model_dump() == yaml.safe_load(COMMITTED.read_text(encoding="utf-8"))


def test_parameters_cannot_be_changed_once_read() -> None:
    loaded = params.load(COMMITTED)
    with pytest.raises(ValidationError, match="frozen"):
        loaded.train.steps = 3  # type: ignore[misc]


@pytest.mark.parametrize(
    ("text", "value"), [("1e-05", 1e-05), ("2e-4", 2e-4), ("3E0", 3.0), ("1.5e2", 150.0), ("+4e1", 40.0)]
)
def test_exponents_that_yaml_reads_as_text_become_floats(text: str, value: float) -> None:
    read = yaml.safe_load(text)
    assert isinstance(read, str)
    assert params.check(changed({"train.learning_rate": read})).train.learning_rate == value


def test_exponents_are_read_inside_lists_and_optional_values() -> None:
    loaded = params.check(changed({"train.betas": ["9e-1", "99e-2"], "train.grad_clip": "5e-1"}))
    assert loaded.train.betas == [0.9, 0.99]
    assert loaded.train.grad_clip == 0.5


@pytest.mark.parametrize("key", ["train.steps", "train.seed", "network.channels", "data.image_size"])
def test_text_is_no_integer(key: str) -> None:
    assert complaints({key: "1e3"}) == [f"{key} = '1e3': must be a valid integer"]


@pytest.mark.parametrize(
    ("key", "value", "rule"),
    [
        ("train.learning_rate", "abc", "must be a valid number"),
        ("train.learning_rate", "0.1", "must be a valid number"),
        ("train.learning_rate", True, "must be a valid number"),
        ("train.learning_rate", 0.0, "must be greater than 0"),
        ("train.learning_rate", float("nan"), "must be a finite number"),
        ("train.steps", True, "must be a valid integer"),
        ("train.steps", 10.0, "must be a valid integer"),
        ("train.steps", -1, "must be greater than or equal to 0"),
        ("train.seed", 2**63, f"must be less than {2**63}"),
        ("train.horizontal_flip", "yes", "must be a valid boolean"),
        ("train.horizontal_flip", 1, "must be a valid boolean"),
        ("train.ema_decay", 1.0, "must be less than 1"),
        ("train.precision", "fp16", "must be 'fp32' or 'bf16'"),
        ("data.source", "imagenet", "'kmnist', 'cifar10' or 'folder'"),
        ("data.channels", 2, "must be 1 or 3"),
        ("data.image_size", 1, "must be greater than or equal to 2"),
        ("network.dropout", -0.1, "must be greater than or equal to 0"),
        ("network.multipliers", [], ": list must have at least 1 item"),
        ("network.multipliers", "12", "must be a valid list"),
        ("sample.clip", None, "must be a valid boolean"),
        ("sample.guidance", -0.5, "must be greater than or equal to 0"),
        ("sample.eta", 1.5, "must be less than or equal to 1"),
        ("evaluate.neighbours", 65, "must be less than or equal to 64"),
        ("runtime.device", "gpu", ": string must match pattern"),
        ("tracking.experiment", "", ": string must have at least 1 character"),
    ],
)
def test_a_wrong_value_is_named_with_its_rule(key: str, value: object, rule: str) -> None:
    (line,) = complaints({key: value})
    assert line.startswith(f"{key} = {value!r}: ")
    assert rule in line


def test_a_number_too_large_for_a_float_is_refused() -> None:
    assert complaints({"train.learning_rate": "1e400"}) == ["train.learning_rate = inf: must be a finite number"]


def test_a_wrong_item_of_a_list_is_named_by_its_place() -> None:
    assert complaints({"train.betas": [0.9, "x"]}) == ["train.betas.1 = 'x': must be a valid number"]


def test_an_unknown_key_is_named() -> None:
    assert complaints({"train.learningrate": 3}) == ["train.learningrate = 3: there is no such key"]
    assert complaints({"model": {}}) == ["model = {}: there is no such key"]
    assert complaints({"train.learning-rate": 3}) == ["train.learning-rate = 3: there is no such key"]
    assert complaints({"train ": {}}) == ["train  = {}: there is no such key"]


@pytest.mark.parametrize(
    ("key", "allowed"), [("network.kind", "'unet' or 'basic'"), ("diffusion.process", "'gaussian' or 'interpolation'")]
)
def test_the_key_that_chooses_the_form_of_a_section_is_named(key: str, allowed: str) -> None:
    section, tag = key.split(".")
    assert complaints({key: "x"}) == [f"{key} = 'x': must be {allowed}"]
    values = changed({})
    del values[section][tag]
    with pytest.raises(params.ParamsError, match=f"{key}: is missing; recipes/default.yaml shows"):
        params.check(values)


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"diffusion": {**INTERPOLATION, "beta_end": 0.02}}, "diffusion.beta_end = 0.02: there is no such key"),
        ({"diffusion": {**INTERPOLATION, "prediction": "eps"}}, "diffusion.prediction = 'eps': must be 'x_0'"),
        ({"diffusion": {**INTERPOLATION, "variance": "learned"}}, "diffusion.variance = 'learned': must be 'fixed'"),
        ({"network": {**BASIC, "groups": 8}}, "network.groups = 8: there is no such key"),
        ({"network": {**BASIC, "conditional": True}}, "network.conditional = True: must be False"),
        ({"network": {**BASIC, "time": True}}, "network.time = True: must be False"),
    ],
)
def test_each_form_of_a_section_has_its_own_keys_and_values(changes: dict[str, Any], line: str) -> None:
    assert complaints(changes) == [line]


def test_a_missing_section_or_key_is_named() -> None:
    values = changed({})
    del values["sample"], values["train"]["betas"]
    with pytest.raises(params.ParamsError) as caught:
        params.check(values)
    rule = "is missing; recipes/default.yaml shows every section and key"
    assert [line.strip() for line in str(caught.value).splitlines()[1:]] == [f"train.betas: {rule}", f"sample: {rule}"]


def test_all_wrong_values_are_reported_at_once() -> None:
    assert complaints({"data.fit": "squeeze", "train.stepz": 7, "evaluate.classifier.channels": 0}) == [
        "data.fit = 'squeeze': must be 'pad', 'resize' or 'crop'",
        "train.stepz = 7: there is no such key",
        "evaluate.classifier.channels = 0: must be greater than or equal to 1",
    ]


def test_all_conflicts_are_reported_at_once() -> None:
    assert complaints({"data.image_size": 7, "sample.steps": 1001, "train.batch_size": 64, "train.accumulate": 3}) == [
        "data.image_size = 7: the network's 2 levels (network.multipliers) halve it 1 times, "
        "so it must be a multiple of 2",
        "train.accumulate = 3: must divide train.batch_size = 64 into equal micro-batches",
        "sample.steps = 1001: must be at most diffusion.timesteps = 1000",
    ]


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"data.image_size": 12, "network.multipliers": [1, 1, 1, 2]}, "data.image_size = 12: the network's 4 levels"),
        ({"network.attention": [4, 3]}, "network.attention = [4, 3]: feature maps have the sizes [8, 4], not [3]"),
        ({"network.groups": 5}, "network.groups = 5: must divide every level's channels"),
        ({"network.heads": 7}, "network.heads = 7: must divide every level's channels"),
        ({"network.channels": 2, "network.groups": 2}, "network.channels = 2: must be even and at least 4"),
        ({"network.channels": 9, "network.groups": 3}, "network.channels = 9: must be even and at least 4"),
        ({"diffusion.beta_start": 0.5}, "diffusion.beta_start = 0.5: must not be above diffusion.beta_end = 0.02"),
        ({"diffusion.timesteps": 20_000}, "diffusion.timesteps = 20000: with beta from 0.0001 to 0.02 no float32"),
        ({"diffusion.beta_end": 0.9}, "diffusion.timesteps = 1000: with beta from 0.0001 to 0.9 no float32"),
        ({"diffusion.value_range": [1.0, 1.0]}, "diffusion.value_range = [1.0, 1.0]: must be [low, high]"),
        (
            {"diffusion.schedule": "const"},
            "diffusion.beta_start = 0.0001: must be null for the schedule const",
        ),
        ({"diffusion.beta_end": None}, "diffusion.beta_end = None: must be a number for the schedule linear"),
        ({"diffusion.schedule": "cosine", "diffusion.beta_start": None}, "diffusion.beta_end = 0.02: must be null for"),
        (
            {"diffusion.schedule": "warmup50", "diffusion.beta_start": None},
            "diffusion.beta_start = None: must be a number for the schedule warmup50",
        ),
        ({**JSD, "diffusion.prediction": "eps"}, "diffusion.prediction = 'eps': nothing of the image is left at the"),
        ({"diffusion.variance": "learned"}, "train.loss = 'simple': does not train the learned variance; use vlb or"),
        ({"train.loss": "hybrid"}, "train.loss = 'hybrid': adds the bound for a learned variance, and diffusion.var"),
        ({"train.snapshots": [20, 10]}, "train.snapshots = [20, 10]: must be rising steps, none above train.steps"),
        ({"train.snapshots": [10, 10]}, "train.snapshots = [10, 10]: must be rising steps"),
        ({"train.snapshots": [10, 9999]}, "train.snapshots = [10, 9999]: must be rising steps, none above train.steps"),
        ({"train.weighting": "min_snr"}, "train.min_snr_gamma = None: must be a number for min_snr and null otherwise"),
        ({"train.min_snr_gamma": 5.0}, "train.min_snr_gamma = 5.0: must be a number for min_snr and null otherwise"),
        ({"train.weighting": "snr", "train.loss": "vlb"}, "train.weighting = 'snr': is for the losses simple and hyb"),
        ({"train.weighting": "snr", "diffusion.prediction": "mu"}, "train.weighting = 'snr': is for the losses simple"),
        ({"network.conditional": True}, "train.label_dropout = None: must be a number if network.conditional is true"),
        ({"train.label_dropout": 0.1}, "train.label_dropout = 0.1: must be a number if network.conditional is true"),
        (
            {"network.conditional": True, "train.label_dropout": 0.0},
            "sample.guidance = None: must be 0, the class alone, for with train.label_dropout = 0 nothing is trained",
        ),
        (
            {"network.conditional": True, "train.label_dropout": 0.0, "sample.guidance": 0.5},
            "sample.guidance = 0.5: must be 0, the class alone",
        ),
        ({"sample.guidance": 1.0}, "sample.guidance = 1.0: must be null, for the network is not conditional"),
        ({"sample.steps": 1, "sample.spacing": "leading"}, "sample.steps = 1: leading spacing would put it at t = 1"),
        ({"sample.steps": 1, "sample.spacing": "quad"}, "sample.steps = 1: quad spacing would put it at t = 1"),
        ({"sample.sampler": "dpm_solver"}, "sample.eta = 1.0: must be a number for ddim and null for ancestral and"),
        (
            {"sample.sampler": "dpm_solver", "sample.eta": None, "sample.sigma": "large"},
            "sample.sigma = 'large': must be large or small for ancestral with diffusion.variance fixed",
        ),
        (
            {**LEARNED, **ANCESTRAL, "sample.steps": 500},
            "sample.steps = 500: a learned variance is that of single steps, so ancestral sampling must take all 1000",
        ),
        (
            {**LEARNED, **ANCESTRAL, "sample.steps": 1000, "sample.spacing": "quad"},
            "sample.steps = 1000: a learned variance is that of single steps",
        ),
        (
            {**LEARNED, **ANCESTRAL, "sample.steps": 1000, "sample.sigma": "small"},
            "sample.sigma = 'small': must be large or small for ancestral with diffusion.variance fixed",
        ),
        ({**COURSE, "train.loss": "vlb"}, "train.loss = 'vlb': must be simple, for the interpolation process has no"),
        ({**COURSE, "train.weighting": "snr"}, "train.weighting = 'snr': is for the losses simple and hybrid, the gau"),
        ({**COURSE, "sample.eta": 0.5}, "sample.sampler: the interpolation process is sampled by ddim, with eta 0"),
        ({**COURSE, "sample.spacing": "leading"}, "sample.sampler: the interpolation process is sampled by ddim"),
        (
            {**COURSE, "sample.sampler": "dpm_solver", "sample.eta": None},
            "sample.sampler: the interpolation process is sampled by ddim",
        ),
        (
            {**COURSE, "sample.sampler": "ancestral", "sample.eta": None, "sample.sigma": "large"},
            "sample.sampler: the interpolation process is sampled by ddim",
        ),
        (
            {**COURSE, "evaluate.likelihood_images": 5},
            "evaluate.likelihood_images = 5: must be 0, for the interpolation process has no variational bound",
        ),
        ({"network": BASIC, "data.image_size": 10}, "data.image_size = 10: the network's 3 levels"),
        ({"train.steps": 0}, "train.steps = 0: without training, train.init must name the model"),
        ({"sample.eta": None}, "sample.eta = None: must be a number for ddim and null for ancestral and dpm_solver"),
        ({"sample.sigma": "large"}, "sample.sigma = 'large': must be large or small for ancestral with diffusion.var"),
        (
            {"sample.sampler": "ancestral", "sample.sigma": "small", "sample.eta": 0.0},
            "sample.eta = 0.0: must be a number for ddim",
        ),
        ({"sample.sampler": "ancestral", "sample.eta": None}, "sample.sigma = None: must be large or small"),
        ({"evaluate.extractor": "inception"}, "evaluate.classifier: must be null when evaluate.extractor is inception"),
        ({"evaluate.classifier": None}, "evaluate.classifier = None: the classifier extractor needs this section"),
        ({"evaluate.weights": "w.pth"}, "evaluate.weights = 'w.pth': must be null unless"),
        ({"data.seed": None}, "data.seed = None: must be a number for digits and folder"),
        ({"data.source": "mnist"}, "data.seed = 0: must be a number for digits and folder"),
        ({"data.path": "a.zip"}, "data.path = 'a.zip': must be null unless data.source is folder"),
        ({"data.digest": "0" * 64}, f"data.digest = '{'0' * 64}': must be null unless data.source is folder"),
        ({"data.source": "folder"}, "data.path = None: source folder needs the folder's or the .zip's path"),
        ({"data.source": "folder", "data.path": "x", "data.seed": None}, "data.seed = None: source folder needs"),
    ],
)
def test_values_that_do_not_go_together_are_named(changes: dict[str, Any], complaint: str) -> None:
    lines = complaints(changes)
    assert any(line.startswith(complaint) for line in lines), lines
    assert len({line.split(" = ")[0].split(":")[0] for line in lines}) == 1


@pytest.mark.parametrize(
    "changes",
    [
        {"sample.sampler": "ancestral", "sample.eta": None, "sample.sigma": "large", "sample.steps": 1000},
        {"evaluate.extractor": "inception", "evaluate.classifier": None, "evaluate.weights": "w.pth"},
        {
            "data.source": "cifar10",
            "data.seed": None,
            "data.channels": 3,
            "data.image_size": 32,
            "network.attention": [16],
        },
        {"data.source": "folder", "data.path": "a.zip", "data.digest": "0" * 64},
        {"train.steps": 0, "train.init": "model.safetensors"},
        {"train.grad_clip": None, "train.warmup": 0},
        {"data.image_size": 6, "network.attention": [6, 3]},
        {"diffusion.beta_start": 0.02},
        {**JSD, "diffusion.prediction": "v"},
        {**JSD, "diffusion.schedule": "sigmoid"},
        {"diffusion.schedule": "const", "diffusion.beta_start": None},
        {**LEARNED, **ANCESTRAL, "sample.steps": 1000},
        {**LEARNED, **ANCESTRAL, "diffusion.variance": "learned_range", "sample.steps": 50},
        {"sample.sampler": "dpm_solver", "sample.eta": None},
        {"network.conditional": True, "train.label_dropout": 0.1, "sample.guidance": 0.0},
        {"network.conditional": True, "train.label_dropout": 0.0, "sample.guidance": 0.0},
        {"train.weighting": "min_snr", "train.min_snr_gamma": 5.0, "diffusion.prediction": "v"},
        {"train.snapshots": [10, 20]},
        {**COURSE, "network": BASIC},
        {**COURSE, "sample.spacing": "linspace"},
    ],
)
def test_alternatives_are_usable(changes: dict[str, Any]) -> None:
    loaded = params.check(changed(changes))
    assert loaded.model_dump() == changed(changes)


@pytest.mark.parametrize("content", ["", "- 1\n", "text\n"])
def test_a_file_that_is_no_mapping_is_refused_by_name(tmp_path: Path, content: str) -> None:
    path = tmp_path / "params.yaml"
    path.write_text(content)
    with pytest.raises(params.ParamsError, match=rf"{path} must be a mapping with the sections data, diffusion, "):
        params.load(path)


def test_a_file_that_is_no_yaml_is_refused_by_name_and_line(tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    path.write_text("data:\n  source: [\n")
    with pytest.raises(params.ParamsError, match=rf"(?s){path} is not valid YAML: .*line 3"):
        params.load(path)


def test_a_file_that_is_no_utf8_is_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    path.write_bytes("data: {}  # Größe\n".encode("latin-1"))
    with pytest.raises(params.ParamsError, match=rf"{path} is not valid YAML: .*utf-8"):
        params.load(path)


def test_a_missing_file_is_not_hidden(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"params\.yaml"):
        params.load(tmp_path / "params.yaml")
