"""`ddpm compare` against a store of a few experiments."""

import csv
import io
import json
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import yaml
from PIL import Image
from rich.console import Console
from typer.testing import CliRunner, Result

from ddpm.params import load
from lab.commands import compare
from lab.commands.app import app
from lab.experiment import dvcfile
from lab.pages import comparison
from lab.pages.comparison import Experiment
from lab.tracking.records import Records
from lab.tracking.run import EXTRACTOR, FINGERPRINT

# MLflow and SQLAlchemy warn about each other.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")

ROOT = Path(__file__).parents[3]
SHARED = {"data.source": "digits", "data.path": None, "network.multipliers": [1, 2], "train.steps": 100}
LOSS = [(50, 0.5), (100, 0.25)]
# In the order in which they start: the newest is the first of a table.
EXPERIMENTS: list[dict[str, Any]] = [
    {"name": "eta", "params": {"sample.eta": 0.0, "train.learning_rate": 1e-5}, "fid": 1.5, "is": 8.0},
    {"name": "eta", "params": {"sample.eta": 1.0, "train.learning_rate": 1e-5}, "fid": 2 / 3, "is": 7.0},
    {"name": "<b>wide</b>", "params": {"sample.eta": 0.0, "network.multipliers": [1, 4]}, "fid": 1.0, "is": 9.0},
    {"name": "deleted", "params": {"sample.count": 1}, "fid": 0.1, "is": 99.0},
    {"name": "going", "params": {"sample.eta": 0.0, "train.learning_rate": 1e-5}},
]


def record(client: Any, group: str, place: int, folder: Path) -> None:
    """One of the experiments, as `publish` and `live` write it."""
    from mlflow.entities import Metric, Param

    experiment = EXPERIMENTS[place]
    tags = {FINGERPRINT: f"{place}" * 64, EXTRACTOR: "e" * 64}
    run = client.create_run(
        group, start_time=1_000_000 * (place + 1), run_name=experiment["name"], tags=tags
    ).info.run_id
    values = SHARED | experiment["params"]
    params = [Param(key, value if isinstance(value, str) else json.dumps(value)) for key, value in values.items()]
    name = "loss" if place == 0 else "train/loss"  # an earlier version wrote the first
    metrics = [Metric(name, value, step, step) for step, value in LOSS]
    metrics += [Metric(f"classifier.{key}", experiment[key], 0, 0) for key in ("fid", "is") if key in experiment]
    client.log_batch(run, metrics, params)
    if experiment["name"] == "deleted":
        client.delete_run(run)
    elif "fid" in experiment:
        Image.new("L", (4, 4), 50 * place).save(folder / "samples.png")
        client.log_artifact(run, str(folder / "samples.png"), "reports")
        client.set_terminated(run)


@pytest.fixture(scope="module")
def filled(first_publication: tuple[Path, str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository whose store has the experiments."""
    from mlflow.tracking import MlflowClient

    folder = tmp_path_factory.mktemp("compared")
    for name in ("dvc.yaml", "params.yaml"):
        shutil.copy(ROOT / name, folder)
    (folder / "recipes").mkdir()
    shutil.copy(first_publication[0], folder / "mlflow.db")
    client = MlflowClient(f"sqlite:///{folder}/mlflow.db")
    group = client.create_experiment("ddpm", artifact_location=(folder / "mlartifacts").as_uri())
    for place in range(len(EXPERIMENTS)):
        record(client, group, place, folder)
    return folder


@pytest.fixture
def store(filled: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The same, as the working directory; tests leave it as it is."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.chdir(filled)
    monkeypatch.setattr(dvcfile, "ROOT", filled)
    return filled


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["compare", *map(str, arguments)])


def rows(*arguments: object) -> list[list[str]]:
    """The cells of the table that is printed, without its head."""
    result = run(*arguments)
    assert result.exit_code == 0, result.output
    table = result.stdout.split("─\n")[1].split("* the best")[0]
    return [re.split(r" {2,}", line.strip()) for line in table.splitlines()]


@pytest.mark.usefixtures("store")
def test_the_table_has_what_differs_and_the_best_newest_first() -> None:
    assert rows() == [
        ["going (running)", "[1, 2]", "1.0e-05", "0.0", "-", "-"],
        ["<b>wide</b>", "[1, 4]", "-", "0.0", "1", "9*"],
        ["eta 11111111", "[1, 2]", "1.0e-05", "1.0", "0.6667*", "7"],
        ["eta 00000000", "[1, 2]", "1.0e-05", "0.0", "1.5", "8"],
    ]


@pytest.mark.usefixtures("store")
def test_experiments_are_chosen_by_name_and_sorted_by_a_metric() -> None:
    assert rows("eta", "--metric", "classifier.is") == [["eta 00000000", "0.0", "8*"], ["eta 11111111", "1.0", "7"]]


@pytest.mark.parametrize("options", [["nobody"], ["--metric", "fid"]])
@pytest.mark.usefixtures("store")
def test_error_of_a_missing_experiment_or_metric_is_one_message(options: list[str]) -> None:
    result = run(*options)
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.startswith("ddpm: ")
    assert len(result.stderr.splitlines()) == 1


def test_the_file_has_all_digits_and_every_metric(store: Path, tmp_path: Path) -> None:
    assert run("--csv", tmp_path / "table.csv").exit_code == 0
    with (tmp_path / "table.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["status"] for row in rows] == ["running", "finished", "finished", "finished"]
    assert list(rows[0])[4:] == ["network.multipliers", "train.learning_rate", "sample.eta", "classifier.fid",
                                 "classifier.is", "loss"]  # fmt: skip
    assert (rows[2]["fingerprint"], rows[2]["started"]) == ("1" * 64, "1970-01-01T00:33:20+00:00")
    assert (float(rows[2]["classifier.fid"]), rows[2]["train.learning_rate"]) == (2 / 3, "1e-05")
    assert (rows[1]["network.multipliers"], rows[1]["train.learning_rate"]) == ("[1, 4]", "")
    assert not list(store.glob("*.csv"))


@pytest.mark.usefixtures("store")
def test_the_files_that_were_written_are_named_below_the_table(tmp_path: Path) -> None:
    table, page = tmp_path / "table.csv", tmp_path / "page.html"
    lines = run("--csv", table, "--html", page).stdout.splitlines()
    assert lines[-2:] == [f"wrote {table}: all metrics in full precision", f"wrote {page}: open it in a browser"]
    assert lines[:-2] == run().stdout.splitlines()


@pytest.mark.usefixtures("store")
def test_the_file_may_be_what_is_printed(tmp_path: Path) -> None:
    assert run("--csv", tmp_path / "table.csv").exit_code == 0
    result = run("--csv", "-", "--html", tmp_path / "page.html")
    assert result.stdout == (tmp_path / "table.csv").read_text()
    assert result.stderr == f"wrote {tmp_path / 'page.html'}: open it in a browser\n"


def test_files_are_written_from_where_one_stands(store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (store / "recipes/below").mkdir(exist_ok=True)
    monkeypatch.chdir(store / "recipes/below")
    assert run("--csv", "table.csv", "--html", tmp_path / "page.html").exit_code == 0
    (store / "recipes/below/table.csv").unlink()
    assert (tmp_path / "page.html").exists()


@pytest.mark.parametrize("option", ["--csv", "--html"])
def test_a_path_that_cannot_be_written_is_one_message(option: str, store: Path) -> None:
    for place, why in ((store, "a folder or a device has that name"), ("/dev/stdout", "a folder or")):
        result = run(option, place)
        assert (result.exit_code, result.stdout) == (1, "")
        assert result.stderr.startswith(f"ddpm: {place}: {why}")


def test_a_damaged_picture_is_skipped_on_the_page(store: Path, tmp_path: Path) -> None:
    pictures = {path: path.read_bytes() for path in (store / "mlartifacts").rglob("samples.png")}
    for path in pictures:
        path.write_bytes(b"")
    assert run("--html", tmp_path / "page.html").exit_code == 0
    for path, contents in pictures.items():
        path.write_bytes(contents)
    assert 'alt="Samples of' not in (tmp_path / "page.html").read_text()


@pytest.mark.usefixtures("repository")
def test_the_password_of_a_store_is_not_printed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://somebody:secret@127.0.0.1:9")
    said = run().stderr
    assert said.startswith("ddpm: MLflow at http://...@127.0.0.1:9 cannot be read: ")
    assert "secret" not in said


@pytest.mark.usefixtures("store")
def test_a_narrow_terminal_shows_what_fits_and_names_the_rest() -> None:
    table = compare.collect(Records(load(dvcfile.PARAMS).tracking), [], [])
    console = Console(width=60, force_terminal=True, record=True, file=io.StringIO())
    compare.show(table, console)
    text = console.export_text()
    assert max(map(len, text.splitlines())) <= 60
    assert "1.0e-05" not in text
    assert "0.6667*" in text
    assert "Not shown, although they differ: train.learning_rate" in text


@pytest.mark.parametrize("width", range(30, 60))
def test_the_parameters_that_fit_are_shown_without_folding(width: int) -> None:
    params = {f"train.setting_{index}": 0 for index in range(3)}
    experiments = [
        Experiment(str(value), "", "finished", 0.0, dict.fromkeys(params, value), {"a.fid": 1.0}, "", str(value))
        for value in range(2)
    ]
    console = Console(width=width, force_terminal=True, record=True, file=io.StringIO())
    compare.show(comparison.compare(experiments), console)
    lines = console.export_text().split("─\n")
    assert len(lines[0].splitlines()) == 3  # two of the head, one of dashes
    assert lines[0].count("setting_") == min(3, (width - 16) // 12)  # 10 for the names, 3 for the metric
    assert re.match(r"0 .*\n1 .*\n\* the best", lines[1])


def test_the_parameters_with_the_most_different_values_are_shown_first() -> None:
    values = [{"data.path": "a" * 20}, {"data.path": "b" * 20}, {"data.path": "b" * 20}]
    experiments = [
        Experiment(str(steps), "", "finished", 0.0, one | {"train.steps": steps}, {}, "", str(steps))
        for steps, one in enumerate(values)
    ]
    console = Console(width=34, force_terminal=True, record=True, file=io.StringIO())
    compare.show(comparison.compare(experiments), console)
    head, text = console.export_text().split("─\n")
    assert "steps" in head
    assert "Not shown, although they differ: data.path." in " ".join(text.split())


def test_values_that_are_no_numbers_are_written_to_the_file_as_json() -> None:
    values = [None, True, "text", [1, None]]
    experiments = [Experiment(str(value), "", "finished", 0.0, {"a.b": value}, {}, "", "") for value in values]
    rows = csv.DictReader(io.StringIO(compare.csv(comparison.compare(experiments))))
    assert [row["a.b"] for row in rows] == ["null", "true", "text", "[1, null]"]


def test_a_digest_is_whole_in_the_file_and_shortened_in_the_table() -> None:
    experiments = [Experiment(one, "", "finished", 0.0, {"data.digest": one * 64}, {}, "", one) for one in "ab"]
    table = comparison.compare(experiments)
    output = io.StringIO()
    compare.show(table, Console(file=output))
    assert "a" * 64 in compare.csv(table)
    assert re.findall("a+$", output.getvalue().replace(" ", ""), re.MULTILINE) == ["a" * 9]


@pytest.mark.usefixtures("store")
def test_the_page_has_the_table_the_samples_and_the_curves(tmp_path: Path) -> None:
    assert run("--html", tmp_path / "page.html").exit_code == 0
    page = (tmp_path / "page.html").read_text()
    assert page.count('src="data:image/png;base64,') == 3
    assert 'alt="Samples of eta 11111111"' in page
    assert "No samples of going are in MLflow" in page
    assert 'aria-label="Loss over optimizer steps of going, ' in page
    assert '<td class="number best">0.6667 ★</td>' in page
    assert "<b>wide" not in page
    assert "&lt;b&gt;wide&lt;/b&gt;" in page


def test_error_of_an_empty_table_names_the_commands_that_fill_it(
    repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    result = run()
    assert result.exit_code == 1
    assert result.stderr.startswith(f"ddpm: no experiment is tracked as ddpm in sqlite:///{repository}/mlflow.db: ")
    assert "`dvc repro`" in result.stderr
    assert "`ddpm publish --all`" in result.stderr
    assert not (repository / "mlflow.db").exists()


def test_a_server_that_is_down_is_one_message_soon(repository: Path) -> None:
    contents = yaml.safe_load((repository / "params.yaml").read_text())
    contents["tracking"]["uri"] = "http://127.0.0.1:9"
    (repository / "params.yaml").write_text(yaml.safe_dump(contents))
    start = time.monotonic()
    result = run()
    assert time.monotonic() - start < 10
    assert result.exit_code == 1
    assert result.stderr.startswith("ddpm: MLflow at http://127.0.0.1:9 cannot be read: ")


def test_a_table_does_not_wait_for_torch_matplotlib_and_pandas() -> None:
    script = "import sys, lab.commands.app, lab.commands.compare; print(*sys.modules)"
    imported = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    assert not {"torch", "matplotlib", "pandas"} & set(imported.stdout.split())
