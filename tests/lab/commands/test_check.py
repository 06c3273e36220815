"""`ddpm check`: params.yaml with changes as those of `dvc exp run -S`, without a run."""

from pathlib import Path

import pytest
import yaml

from lab.experiment import dvcfile
from tests.commands import fails, run

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
