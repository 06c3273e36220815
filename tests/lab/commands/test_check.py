"""`ddpm check`: params.yaml with changes as those of `dvc exp run -S`, without a run."""

import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from ddpm import params
from lab import capacity
from lab.experiment import dvcfile, speed
from tests.commands import fails, run
from tests.imports import ROOT

RUN = "stages to run for these parameters:"
EVERY_STAGE = "prepare, reference, train, sample, evaluate, report"


def checked(*changes: str) -> list[str]:
    """The lines of the command for these changes. It writes nothing."""
    before = Path("params.yaml").read_bytes()
    result = run("check", *(part for change in changes for part in ("-S", change)))
    assert result.exit_code == 0, result.output
    assert Path("params.yaml").read_bytes() == before
    return result.stdout.splitlines()


def refused(*changes: str) -> str:
    before = sorted(Path().rglob("*")), Path("params.yaml").read_bytes()
    message = fails("check", *(part for change in changes for part in ("-S", change)))
    assert (sorted(Path().rglob("*")), Path("params.yaml").read_bytes()) == before
    return message


@pytest.mark.usefixtures("repository")
def test_the_default_recipe_is_usable() -> None:
    usable, settings, *_ = checked()
    assert usable == "params.yaml is usable"
    assert settings == "all settings are those of recipes/default.yaml"


@pytest.mark.usefixtures("repository")
def test_settings_that_differ_from_the_default_are_listed() -> None:
    lines = checked("train.learning_rate=1e-5", "data.path='a b'", "network.multipliers=[1,2,2]")
    assert lines[: lines.index("network: 1,112,801 parameters")] == [
        "params.yaml with train.learning_rate=1e-5, data.path='a b', network.multipliers=[1,2,2] is usable",
        "differs from recipes/default.yaml in:",
        '  data.path = "a b" (not in use)',
        "  network.multipliers = [1, 2, 2] (default: [1, 2])",
        "  train.learning_rate = 1e-05 (default: 0.001)",
    ]


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine with 8 GB of memory and 2 GB of free disk, and no GPU."""
    monkeypatch.setattr(capacity, "memory", lambda: 8 * 10**9)
    monkeypatch.setattr(capacity, "free_disk", lambda _: 2 * 10**9)
    monkeypatch.setattr(capacity, "gpu_memory", lambda: None)


@pytest.mark.usefixtures("repository", "machine")
def test_what_the_experiment_needs_is_printed() -> None:
    assert checked()[2:-1] == [
        "network: 701,345 parameters",
        "memory, about: reference 1.01 GB, train 1.05 GB, sample 1.02 GB, evaluate 1.02 GB; this machine has 8 GB",
        "  of train: 14 MB weights, gradients, Adam's moments and the average, 33.1 MB activations of 64 images",
        "disk, about: 41.8 MB; 2 GB are free",
    ]


@pytest.mark.usefixtures("repository", "machine")
def test_memory_and_disk_that_are_too_small_are_named_with_the_key_to_lower() -> None:
    lines = checked("network.channels=1024", "train.batch_size=100000", "evaluate.classifier.batch_size=1000000")
    assert "  too little for reference: lower evaluate.classifier.batch_size" in lines
    assert "  too little for train: lower network.channels" in lines
    assert "  too little: lower network.channels" in lines
    assert "  too little for train: lower train.batch_size or raise train.accumulate" in checked(
        "train.batch_size=50000"
    )
    folder = ["data.source=folder", "data.path=a.zip", "data.image_size=8", "data.channels=1"]
    assert "disk, about: 39.7 MB and the images with their features; 2 GB are free" in checked(*folder)


@pytest.mark.usefixtures("repository", "machine")
def test_the_memory_of_a_gpu_counts_if_there_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(capacity, "gpu_memory", lambda: 4 * 10**9)
    assert "train 47.1 MB, sample 24.4 MB, evaluate 24.6 MB; the GPU has 4 GB" in "\n".join(checked())
    assert "this machine has 8 GB" in "\n".join(checked("runtime.device=cpu"))


@pytest.mark.usefixtures("machine")
def test_the_time_of_the_training_follows_from_the_last_one(repository: Path) -> None:
    chosen = params.load(Path("params.yaml"))
    folder = repository / ".ckpt/0123456789abcdef"
    speed.record(folder, chosen, "cpu", 0.1)
    line = "time of train: {} for {} steps{}; a step took 0.1 s when last measured"
    assert line.format("0:04:10", "2,500", "") in checked()
    (folder / "step-00000500.safetensors").touch()
    assert line.format("0:03:20", "2,500", ", 500 of them done") in checked()
    assert line.format("0:05:50", "4,000", ", 500 of them done") in checked("train.steps=4000")
    assert line.format("0:04:10", "2,500", "") in checked("train.seed=1")
    assert not [one for one in checked("train.batch_size=32") if one.startswith("time")]


def test_the_check_does_not_import_torch() -> None:
    """It would take seconds."""
    script = "import sys, lab.commands.app, lab.commands.check; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script], cwd=ROOT).returncode == 0


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (["train.learning_rate=abc"], "train.learning_rate = 'abc': must be a valid number"),
        (["+train.stepz=3"], "train.stepz = 3: there is no such key; the nearest is train.steps"),
        (["~train.steps"], "train.steps: is missing; recipes/default.yaml shows every section and key"),
        (["sample.steps=1001"], "sample.steps = 1001: must be at most diffusion.timesteps = 1000"),
        (["data.seed=${train.seed}", "train.seed=-1"], "train.seed = -1: must be at least 0"),
    ],
)
@pytest.mark.usefixtures("repository")
def test_a_change_is_refused_with_the_message_of_the_stages(changes: list[str], message: str) -> None:
    assert refused(*changes) == f"ddpm: params.yaml with {', '.join(changes)} is not usable:\n  {message}"


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ("train.learning_rat=3", "there is no such key; the nearest is train.learning_rate"),
        ("params.yaml:trian.seed=1", "there is no such key; the nearest is train.seed"),
        ("train.seed=${nothing}", "Interpolation key 'nothing' not found"),
    ],
)
@pytest.mark.usefixtures("repository")
def test_a_change_that_dvc_refuses_is_named(change: str, reason: str) -> None:
    assert refused(change).startswith(f"ddpm: -S {change.removeprefix('params.yaml:')}: {reason}")


@pytest.mark.parametrize("change", ["train.betas=[0.5", "other.yaml:train.seed=3"])
@pytest.mark.usefixtures("repository")
def test_a_change_must_have_the_syntax_of_dvc(change: str) -> None:
    assert refused(change).startswith("ddpm: -S must be KEY=VALUE: ")


@pytest.mark.usefixtures("repository")
def test_a_change_without_a_value_is_one_line() -> None:
    assert refused("train.steps") == "ddpm: -S must be KEY=VALUE, such as train.steps=200"


@pytest.mark.usefixtures("repository")
def test_every_experiment_of_a_sweep_is_checked() -> None:
    assert checked("sample.eta=0.0,0.5", "train.seed=range(1,3)") == [
        line
        for eta in ("0.0", "0.5")
        for seed in (1, 2)
        for line in (f"params.yaml with sample.eta={eta}, train.seed={seed} is usable", f"{RUN} {EVERY_STAGE}")
    ]
    assert refused("sample.eta=choice(0.0,2.0,3.0)").splitlines() == [
        "ddpm: params.yaml with sample.eta=2.0 is not usable:",
        "  sample.eta = 2.0: must be at most 1",
        "params.yaml with sample.eta=3.0 is not usable:",
        "  sample.eta = 3.0: must be at most 1",
    ]


@pytest.mark.parametrize(
    ("changes", "stages"),
    [
        ([], "none"),
        (["runtime.preview_every=5"], "none"),
        (["evaluate.neighbours=3"], "evaluate, report"),
        (["train.learning_rate=1e-4"], "train, sample, evaluate, report"),
        (["data.seed=1"], EVERY_STAGE),
    ],
)
def test_stages_with_new_parameters_and_those_after_them_are_named(
    changes: list[str], stages: str, repository: Path
) -> None:
    recorded = {name: {"params": {"params.yaml": dvcfile.declared_params(name)}} for name in dvcfile.stages()}
    (repository / "dvc.lock").write_text(yaml.safe_dump({"stages": recorded}))
    assert checked(*changes)[-1] == f"{RUN} {stages}"


@pytest.mark.usefixtures("repository")
def test_every_stage_is_named_before_the_first_run() -> None:
    assert checked()[-1] == f"{RUN} {EVERY_STAGE}"


@pytest.mark.parametrize(("text", "message"), [("train: [", "is not valid YAML: "), ("- 1", "must be a mapping")])
def test_params_yaml_that_cannot_be_read_is_named(text: str, message: str, repository: Path) -> None:
    (repository / "params.yaml").write_text(text)
    assert fails("check").startswith(f"ddpm: params.yaml {message}")
    (repository / "params.yaml").unlink()
    advice = "run the command in the root of the repository, or `git restore params.yaml`"
    assert fails("check") == f"ddpm: params.yaml: No such file or directory; {advice}"


@pytest.mark.parametrize("content", ["", "stages: [", "stages: 3\n", "<<<<<<< HEAD\n", "stages:\n  train: 3\n"])
def test_error_names_a_damaged_lock_file(repository: Path, content: str) -> None:
    (repository / "dvc.lock").write_text(content)
    assert fails("check") == "ddpm: dvc.lock is damaged: `git restore dvc.lock` restores it"
