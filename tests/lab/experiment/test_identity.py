"""The fingerprint of an experiment, gaps in its results, and the experiments that DVC keeps."""

import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from ddpm.errors import UsageError
from lab.experiment import identity
from tests.imports import ROOT
from tests.lab.tracking.repository import DIGEST, edit, repository
from tests.pipeline import project
from tests.pipeline.project import environment


def git(folder: Path, *arguments: str) -> str:
    command = ["git", "-C", str(folder), *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True, env=environment()).stdout.strip()


def test_experiments_of_one_name_and_two_baselines_are_two(tmp_path: Path) -> None:
    git(tmp_path, "init", "-q")
    commits = []
    for message in ("one", "two", "three"):
        git(tmp_path, "commit", "-q", "--allow-empty", "-m", message)
        commits.append(git(tmp_path, "rev-parse", "HEAD"))
    git(tmp_path, "update-ref", f"refs/exps/aa/{'1' * 38}/same", commits[0])
    git(tmp_path, "update-ref", f"refs/exps/bb/{'2' * 38}/same", commits[1])
    git(tmp_path, "update-ref", "refs/exps/celery/stash", commits[2])
    assert identity.dvc_experiments(tmp_path) == sorted([("same", commits[0]), ("same", commits[1])])


def test_parameters_code_and_data_change_the_fingerprint_and_the_report_does_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(repository(tmp_path))
    first = identity.fingerprint(DIGEST)
    edit(Path("stages/report.py"), lambda text: text + "# edited\n")
    edit(Path("params.yaml"), lambda text: text.replace("experiment: ddpm", "experiment: other"))
    assert identity.fingerprint(DIGEST) == first
    assert identity.fingerprint("e" * 64) != first
    edit(Path("params.yaml"), lambda text: text.replace("steps: 50 ", "steps: 49 "))
    second = identity.fingerprint(DIGEST)
    edit(Path("ddpm/training/loop.py"), lambda text: text + "# edited\n")
    assert len({first, second, identity.fingerprint(DIGEST)}) == 3


def test_without_git_there_is_a_message(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="not a git repository"):
        identity.dvc_experiments(tmp_path)


@pytest.fixture
def lock(tmp_path: Path) -> dict[str, Any]:
    shutil.copy(ROOT / "dvc.lock", tmp_path)
    entries: dict[str, Any] = yaml.safe_load((tmp_path / "dvc.lock").read_text())
    return entries


def gaps(folder: Path, lock: dict[str, Any]) -> list[str]:
    (folder / "dvc.lock").write_text(yaml.safe_dump(lock))
    return list(identity._gaps(identity.lock(folder), folder))


def test_stages_that_fit_have_no_gap(tmp_path: Path, lock: dict[str, Any]) -> None:
    assert gaps(tmp_path, lock) == []


def test_a_stage_that_ran_on_another_model_is_named(tmp_path: Path, lock: dict[str, Any]) -> None:
    [model] = [out for out in lock["stages"]["train"]["outs"] if out["path"] == "models/model.safetensors"]
    model["md5"] = "0" * 32
    assert gaps(tmp_path, lock) == [f"{name}: models/model.safetensors has changed" for name in ("sample", "evaluate")]


def test_a_stage_that_has_not_run_is_named(tmp_path: Path, lock: dict[str, Any]) -> None:
    del lock["stages"]["evaluate"], lock["stages"]["report"]
    assert gaps(tmp_path, lock) == ["evaluate: has not run"]


def test_a_protocol_of_an_earlier_evaluation_is_named(tmp_path: Path, lock: dict[str, Any]) -> None:
    (tmp_path / "reports").mkdir()
    (tmp_path / "reports/protocol.json").write_bytes((ROOT / "reports/protocol.json").read_bytes())
    assert gaps(tmp_path, lock) == []
    edit(tmp_path / "reports/protocol.json", lambda text: text.replace("digits", "mnist"))
    assert gaps(tmp_path, lock) == ["report: has not run since the evaluation"]


@pytest.fixture
def experiment_folder(tmp_path: Path) -> Path:
    for name in ("dvc.yaml", "params.yaml"):
        shutil.copy(ROOT / name, tmp_path)
    return tmp_path


def test_parameters_are_those_that_stages_declare_and_that_are_in_use(experiment_folder: Path) -> None:
    found = identity.params(experiment_folder)
    assert (found["data.image_size"], found["data.channels"], found["sample.eta"]) == (8, 1, 1.0)
    assert (found["sample.sigma"], found["train.min_snr_gamma"], found["sample.guidance"]) == (None, None, None)
    assert not [key for key in found if key.startswith(("tracking", "reported", "runtime.device"))]


def test_settings_that_are_not_in_use_do_not_identify_an_experiment(experiment_folder: Path) -> None:
    def fingerprint(**values: object) -> str:
        project.edit(
            experiment_folder / "params.yaml", {key.replace("__", "."): value for key, value in values.items()}
        )
        return identity.fingerprint("0" * 64, experiment_folder)

    first = fingerprint()
    assert fingerprint(sample__sigma="small", train__label_dropout=0.5, data__path="a.zip") == first
    assert fingerprint(data__image_size=8, diffusion__beta_end=0.02) == first
    assert fingerprint(sample__sampler="ancestral") != first
    second = fingerprint()
    assert fingerprint(sample__sigma="large") != second
    assert fingerprint(sample__sigma="small", sample__eta=0.5) == second


def test_a_title_has_the_images_the_sampler_and_the_start_of_the_fingerprint(experiment_folder: Path) -> None:
    assert identity.title("8bbf0123", experiment_folder) == "digits-ddim50-8bbf"
    values = {"data.source": "folder", "data.path": "pets/cats.zip", "data.image_size": 8, "data.channels": 3}
    project.edit(experiment_folder / "params.yaml", values)
    assert identity.title("8bbf0123", experiment_folder) == "cats-ddim50-8bbf"
