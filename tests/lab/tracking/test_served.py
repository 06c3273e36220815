"""The trained model as MLflow keeps and serves it."""

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pytest

from ddpm import files
from lab.tracking import publish
from tests.lab.commands.test_app import run
from tests.lab.conftest import MakeModel
from tests.pipeline.project import environment

if TYPE_CHECKING:
    from lab.tracking.served import Served

# MLflow warns when it is imported, hence the imports inside.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")

ASKED = {"count": 3, "steps": 4, "seed": 5, "label": None}


def served(path: Path) -> "Served":
    from lab.tracking.served import Served

    model = Served()
    model.load_context(SimpleNamespace(artifacts={"model": str(path)}))
    return model


def generated(path: Path, *options: object) -> np.ndarray:
    """What `ddpm generate` draws, (N, H, W, C)."""
    out = path.parent / "out.safetensors"
    assert run("generate", "--model", path, "--out", out, *options).exit_code == 0
    return files.read_tensors(out).tensors["images"].permute(0, 2, 3, 1).numpy()


def test_answers_are_the_images_of_ddpm_generate(model_file: Path) -> None:
    answer = served(model_file).predict(None, ASKED)
    assert (answer.shape, answer.dtype) == ((3, 4, 4, 1), np.uint8)
    np.testing.assert_array_equal(answer, generated(model_file, "--count", 3, "--steps", 4, "--seed", 5))


def test_what_is_left_out_or_null_is_as_in_ddpm_generate(model_file: Path) -> None:
    expected = generated(model_file)
    assert len(expected) == 16
    for nothing in ({}, dict.fromkeys(("count", "sampler", "eta"))):
        np.testing.assert_array_equal(served(model_file).predict(None, nothing), expected)


def test_a_class_is_asked_for_by_name_or_index(make_model: MakeModel) -> None:
    path = make_model(conditional=True)
    expected = generated(path, "--count", 3, "--label", "dog", "--sampler", "ancestral", "--guidance", 1)
    for label in ("dog", 1):
        asked = {"count": 3, "label": label, "sampler": "ancestral", "guidance": 1}
        np.testing.assert_array_equal(served(path).predict(None, asked), expected)


@pytest.mark.parametrize(
    "given",
    [
        {key: np.array(value) for key, value in ASKED.items()},  # as the server hands on "inputs"
        {key: np.array([value]) for key, value in ASKED.items()},
        pd.DataFrame([ASKED]),  # "dataframe_records"
        pd.DataFrame([ASKED | {"label": float("nan")}]),
    ],
)
def test_every_form_in_which_mlflow_hands_a_request_on_is_the_same_request(given: object) -> None:
    from lab.tracking.served import request

    assert request(given) == request(ASKED)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (
            {"cuont": 3},
            "cuont: there is no such key; there are sampler, count, seed, steps, eta, sigma, spacing, clip,",
        ),
        ({"steps": 11}, "steps 11: must be at most diffusion.timesteps = 10"),
        ({"steps": "many"}, "steps many: must be a valid integer"),
        ({"count": [3, 4]}, r"count = \[3, 4\]: must be one value"),
        ({"sampler": {"ddim": 1}}, "sampler = {'ddim': 1}: must be one value"),
        ({"label": "bird"}, "label bird: the model's classes are 0 cat, 1 dog"),
        ([3], "asked with list: must be a dictionary with some of sampler, count"),
    ],
)
def test_a_request_that_makes_no_sense_is_a_clear_error(given: Any, message: str, make_model: MakeModel) -> None:
    from mlflow.exceptions import MlflowException

    with pytest.raises(MlflowException, match=f"^{message}") as error:
        served(make_model(conditional=True)).predict(None, given)
    assert error.value.get_http_status_code() == 400


ELSEWHERE = """
import sys
import mlflow
import numpy as np
model = mlflow.pyfunc.load_model("package/model")
np.save("answer.npy", model.predict({"count": 3, "steps": 4, "seed": 5, "label": None}))
import ddpm, ddpm.sampling.options
assert ddpm.__file__.startswith(sys.argv[1]) and ddpm.sampling.options.__file__.startswith(sys.argv[1]), ddpm.__file__
"""


def test_a_packaged_model_brings_its_code_and_no_pickle_and_loads_without_a_word(
    model_file: Path, tmp_path: Path
) -> None:
    (tmp_path / "package").mkdir()
    publish._package(model_file, tmp_path / "package")
    packed = tmp_path / "package/model"
    assert {path.suffix for path in packed.rglob("*.*")} == {".py", ".html", ".safetensors", ".txt", ".yaml", ".json"}
    assert "torch==" in (packed / "requirements.txt").read_text()
    command = [sys.executable, "-c", ELSEWHERE, str(packed)]
    done = subprocess.run(command, cwd=tmp_path, env=environment(), capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    np.testing.assert_array_equal(np.load(tmp_path / "answer.npy"), served(model_file).predict(None, ASKED))
