"""The pipeline as users run it: dvc repro, dvc exp run, and the MLflow store."""

import html
import json
import re
import sqlite3

import pytest
import yaml

from ddpm import files
from lab.experiment import identity
from lab.experiment.dvcfile import flatten
from tests.imports import ROOT
from tests.pipeline.project import Project

OUTPUTS = [
    "data/train.safetensors",
    "data/test.safetensors",
    "models/extractor.safetensors",
    "data/reference.safetensors",
    "models/model.safetensors",
    "models/state.safetensors",
    "models/snapshots",
    "reports/train.csv",
    "data/samples.safetensors",
    "data/snapshot-samples.safetensors",
    "reports/samples.png",
    "reports/real.png",
    "reports/denoising.png",
    "reports/trajectory.gif",
    "reports/noising.png",
    "reports/metrics.json",
    "reports/neighbours.png",
    "reports/likelihood.csv",
    "reports/snapshots.csv",
    "reports/classes.csv",
    "data/protocol.json",
    "reports/protocol.json",
    "reports/loss.png",
    "reports/report.md",
    "reports/index.html",
]


def rows(project: Project, query: str) -> list[tuple[str, ...]]:
    """The result of a query on the project's MLflow store."""
    with sqlite3.connect(project.path / "mlflow.db") as store:
        return store.execute(query).fetchall()


def test_repro_makes_every_output(reproduced: Project) -> None:
    missing = [path for path in OUTPUTS if not (reproduced.path / path).exists()]
    assert not missing
    snapshots = {path.name for path in (reproduced.path / "models/snapshots").iterdir()}
    assert snapshots == {"00000006.safetensors", "steps.json"}
    metrics = json.loads((reproduced.path / "reports/metrics.json").read_text())
    assert {
        "fid",
        "fid_matched",
        "fid_floor",
        "kid",
        "is",
        "is_std",
        "is_real",
        "precision",
        "recall",
        "class_distance",
        "accuracy",
        "useless",  # the classifier of this tiny experiment learns nothing
    } == set(metrics["classifier"])


def test_second_repro_runs_nothing_and_leaves_git_clean(reproduced: Project) -> None:
    assert "Running stage" not in reproduced.run("dvc", "repro").stdout
    assert reproduced.git("status", "--porcelain") == ""


def test_no_path_in_the_lock_is_absolute(reproduced: Project) -> None:
    assert str(reproduced.path.parent) not in (reproduced.path / "dvc.lock").read_text()


def test_reports_hold_no_path_of_the_machine(reproduced: Project) -> None:
    for path in (reproduced.path / "reports").iterdir():
        assert str(reproduced.path).encode() not in path.read_bytes(), path


def test_repro_records_one_finished_run_with_curves_and_artifacts(reproduced: Project) -> None:
    runs = rows(reproduced, "SELECT run_uuid, status FROM runs")
    assert [status for _, status in runs] == ["FINISHED"]
    for key, expected in (("train/loss", [5, 10, 12]), ("train/snapshots/fid", [6])):
        steps = rows(reproduced, f"SELECT step FROM metrics WHERE key = '{key}' ORDER BY step")
        assert [step for (step,) in steps] == expected
    artifacts = {path.name for path in (reproduced.path / "mlartifacts").rglob("*") if path.is_file()}
    assert {
        "00000006.png",
        "00000012.png",
        "report.md",
        "index.html",
        "samples.png",
        "params.yaml",
        "dvc.lock",
    } <= artifacts


def test_the_commands_on_the_page_restore_the_parameters(reproduced: Project) -> None:
    text = (reproduced.path / "reports/report.md").read_text()
    recipe, run = re.findall(
        r"```bash\nddpm find \w+\ngit checkout .*?\n(ddpm recipe .*?)\n(dvc exp run .*?)\n```", text, re.DOTALL
    )[0]
    assert run in html.unescape((reproduced.path / "reports/index.html").read_text())
    before = yaml.safe_load((reproduced.path / "params.yaml").read_text())
    reproduced.run("bash", "-c", f"{recipe} && {run} --queue --name again")
    after = yaml.safe_load(reproduced.git("show", "refs/exps/celery/stash:params.yaml"))
    reproduced.run("dvc", "queue", "remove", "again")
    reproduced.restore()
    free = {"checkpoint_every", "preview_every"}  # the page leaves these at their defaults, as they change no byte
    assert {key for key in after["runtime"] if after["runtime"][key] != before["runtime"][key]} <= free
    assert after | {"runtime": None} == before | {"runtime": None}


def test_the_page_shows_the_fingerprint_of_its_run(reproduced: Project) -> None:
    ((fingerprint,),) = rows(reproduced, "SELECT value FROM tags WHERE key = 'ddpm.fingerprint'")
    assert fingerprint in (reproduced.path / "reports/index.html").read_text()
    assert fingerprint in (reproduced.path / "reports/report.md").read_text()


def tags(project: Project, name: str) -> dict[str, str]:
    """The tags of the run with this name."""
    query = f"SELECT key, value FROM tags WHERE run_uuid = (SELECT run_uuid FROM runs WHERE name = '{name}')"
    return {str(key): str(value) for key, value in rows(project, query)}


def test_the_run_of_repro_has_the_duration_of_each_stage(reproduced: Project) -> None:
    [(name,)] = rows(reproduced, "SELECT name FROM runs ORDER BY start_time LIMIT 1")
    found = tags(reproduced, name)
    assert all(0 < float(found[f"seconds.{stage}"]) < 400 for stage in identity.MEASURED)
    assert found["device"] == "cpu"


def test_metrics_and_plots_are_declared_for_dvc(reproduced: Project) -> None:
    shown = json.loads(reproduced.run("dvc", "metrics", "show", "--json").stdout)
    [(path, metrics)] = shown[""]["data"].items()
    assert path == "reports/metrics.json"
    columns = flatten(metrics["data"])
    assert {key.partition(".")[0] for key in columns} == {"classifier", "loss", "neighbours", "snapshots"}
    assert {type(value) for value in columns.values()} <= {float, int}  # no digest, no name, no list
    reproduced.run("dvc", "plots", "show", "--out", "dvc_plots")
    page = (reproduced.path / "dvc_plots/index.html").read_text()
    assert "gradient_norm" in page
    assert "samples.png" in page
    assert '"title": "FID"' in page
    assert '"title": "share of the samples"' in page
    assert '"title": "share of the training images"' in page
    assert "trajectory.gif" in page
    assert '"title": "bits per dimension"' not in page  # a curve without points is left out


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("train.learning_rate=abc", "train.learning_rate = 'abc': must be a valid number"),
        ("train.steps=true", "train.steps = True: must be a valid integer"),
        ("+train.stepz=3", "train.stepz = 3: there is no such key"),
        ("sample.steps=1001", "sample.steps = 1001: must be at most diffusion.timesteps = 1000"),
        ("data.image_size=9", "data.image_size = 9: must be a multiple of 2"),
    ],
)
def test_a_mistake_on_the_command_line_gives_one_clear_error(reproduced: Project, change: str, message: str) -> None:
    result = reproduced.run("dvc", "exp", "run", "-S", change, check=False)
    assert result.returncode != 0
    assert message in result.stderr
    assert "Traceback" not in result.stderr
    way_back = result.stderr.partition("or go back to the last commit: ")[2].splitlines()[0]
    reproduced.run("bash", "-c", way_back)
    assert reproduced.git("status", "--porcelain") == ""
    assert reproduced.run("dvc", "status").stdout == "Data and pipelines are up to date.\n"


def test_a_missing_section_gives_one_clear_error(reproduced: Project) -> None:
    params = reproduced.path / "params.yaml"
    contents = yaml.safe_load(params.read_text())
    del contents["evaluate"]
    params.write_text(yaml.safe_dump(contents))
    result = reproduced.run("dvc", "repro", check=False)
    reproduced.restore()
    assert result.returncode != 0
    assert "evaluate" in result.stderr
    assert "Traceback" not in result.stderr


def test_exp_run_accepts_exponents_and_records_its_own_run(reproduced: Project) -> None:
    result = reproduced.run("dvc", "exp", "run", "-n", "slow", "-S", "train.learning_rate=1e-5", "-S", "train.steps=14")
    assert "Running stage 'prepare'" not in result.stdout
    assert yaml.safe_load((reproduced.path / "params.yaml").read_text())["train"]["steps"] == 14
    ((value,),) = rows(reproduced, "SELECT value FROM latest_metrics m JOIN runs r USING (run_uuid) "
                       "WHERE r.name = 'slow' AND m.key = 'train/optimizer/learning_rate'")  # fmt: skip
    assert float(value) == pytest.approx(1e-5)
    reproduced.restore()


def test_a_temporary_experiment_shares_the_store_and_the_training(reproduced: Project) -> None:
    before = rows(reproduced, "SELECT COUNT(*) FROM runs")[0][0]
    result = reproduced.run("dvc", "exp", "run", "--temp", "-n", "temporary", "-S", "sample.steps=3")
    assert "\ntemporary: 32 samples, measured with a classifier trained on these images\n" in result.stdout
    assert "  report   reports/index.html, after `dvc exp apply temporary`\n" in result.stdout
    assert "  next     ddpm compare\n" in result.stdout
    loss = rows(reproduced, "SELECT COUNT(*) FROM metrics m JOIN runs r USING (run_uuid) "
                "WHERE r.name = 'temporary' AND r.status = 'FINISHED' AND m.key = 'train/loss'")  # fmt: skip
    assert loss == [(3,)]
    found = tags(reproduced, "temporary")
    assert {"seconds.train", "seconds.sample", "device", "torch", "dvc.baseline"} <= set(found)
    assert found["dvc.experiment"] == "temporary"
    assert rows(reproduced, "SELECT COUNT(*) FROM runs") == [(before + 1,)]
    assert reproduced.git("status", "--porcelain") == ""


def test_a_stage_whose_code_is_edited_while_it_runs_fails(fresh: Project) -> None:
    stage = fresh.path / "stages/prepare.py"
    ends_with_edit = stage.read_text().replace("    stage.run(prepare)\n", EDITED_WHILE_RUNNING)
    assert "# edited" in ends_with_edit
    stage.write_text(ends_with_edit)
    result = fresh.run("dvc", "repro", "prepare", check=False)
    assert result.returncode != 0
    assert "ddpm/data/fit.py changed while the stage ran" in result.stderr
    assert not (fresh.path / "dvc.lock").exists()


EDITED_WHILE_RUNNING = """\
    with Path("ddpm/data/fit.py").open("a") as code:
        code.write("# edited")
    stage.run(prepare)
"""


def test_stages_do_not_depend_on_files_of_editors(reproduced: Project) -> None:
    extra = [reproduced.path / "ddpm/network/.unet.py.swp", reproduced.path / "ddpm/training/notes.txt"]
    for path in extra:
        path.write_text("nothing")
    try:
        assert json.loads(reproduced.run("dvc", "status", "--json").stdout) == {}
    finally:
        for path in extra:
            path.unlink()


def test_the_report_depends_on_its_templates(reproduced: Project) -> None:
    template = reproduced.path / "lab/pages/base.html"
    before = template.read_text()
    template.write_text(before + "<!-- edited -->")
    try:
        status = json.loads(reproduced.run("dvc", "status", "--json").stdout)
    finally:
        template.write_text(before)
    assert list(status) == ["report"]


def test_publishing_twice_adds_nothing(reproduced: Project) -> None:
    def counts() -> list[int]:
        tables = ("runs", "metrics", "params", "tags")
        artifacts = [path for path in (reproduced.path / "mlartifacts").rglob("*") if path.is_file()]
        return [int(rows(reproduced, f"SELECT COUNT(*) FROM {table}")[0][0]) for table in tables] + [len(artifacts)]

    before = counts()
    printed = reproduced.run("ddpm", "publish").stdout
    assert counts() == before
    heads = [line.split()[0] for line in printed.splitlines()[-5:]]
    [(name,)] = rows(reproduced, "SELECT name FROM runs ORDER BY start_time LIMIT 1")
    assert heads == [f"{name}:", "metrics", "report", "MLflow", "next"]


@pytest.mark.parametrize(("summary", "expected"), [("", True), ("later", False)])
def test_a_run_prints_where_its_results_are_unless_make_prints_it_later(
    reproduced: Project, summary: str, expected: bool
) -> None:
    report = reproduced.run("dvc", "repro", "--force", "--single-item", "report", DDPM_SUMMARY=summary).stdout
    assert ("  report   reports/index.html\n" in report) == expected
    assert reproduced.git("status", "--porcelain") == ""


def test_make_repro_ends_with_the_summary() -> None:
    recipe = (ROOT / "Makefile").read_text().partition("\nrepro:")[2].partition("\n\n")[0]
    assert recipe.splitlines()[1:] == ["\tDDPM_SUMMARY=later dvc repro", "\tddpm publish"]


def test_generate_draws_the_first_images_of_the_pipeline(reproduced: Project) -> None:
    command = ["ddpm", "generate", "--model", "models/model.safetensors", "--steps", "4", "--count", "3"]
    reproduced.run(*command, "--out", "models/three.safetensors", "--device", "cpu")
    three = files.read_tensors(reproduced.path / "models/three.safetensors").tensors["images"]
    pipeline = files.read_tensors(reproduced.path / "data/samples.safetensors").tensors["images"][:3]
    assert int((three.int() - pipeline.int()).abs().max()) <= 1  # another batch size changes the rounding


def test_the_lock_lists_every_output_once(reproduced: Project) -> None:
    lock = yaml.safe_load((reproduced.path / "dvc.lock").read_text())
    outs = [out["path"] for stage in lock["stages"].values() for out in stage["outs"]]
    assert sorted(outs) == sorted(OUTPUTS)
