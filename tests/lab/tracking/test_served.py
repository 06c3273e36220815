"""The model as MLflow keeps and serves it."""

import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pytest

from ddpm import files
from ddpm.errors import UsageError
from ddpm.params import Sample
from lab.tracking import publish
from tests.commands import run
from tests.lab.conftest import MakeModel
from tests.pipeline.project import environment

if TYPE_CHECKING:
    from starlette.testclient import TestClient

    from lab.tracking.served import Served

# MLflow warns when it is imported, so it is imported inside functions.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")

REQUEST = {"count": 3, "steps": 4, "seed": 5, "label": None}


def served(path: Path) -> "Served":
    from lab.tracking.served import Served

    model = Served()
    model.load_context(SimpleNamespace(artifacts={"model": str(path)}))
    return model


def generated(path: Path, *options: object) -> np.ndarray:
    """The images of `ddpm generate`, (N, H, W, C)."""
    out = path.parent / "out.safetensors"
    assert run("generate", "--model", path, "--out", out, *options).exit_code == 0
    return files.read_tensors(out).tensors["images"].permute(0, 2, 3, 1).numpy()


def test_predictions_are_the_images_of_ddpm_generate(model_file: Path) -> None:
    answer = served(model_file).predict(None, REQUEST)
    assert (answer.shape, answer.dtype) == ((3, 4, 4, 1), np.uint8)
    np.testing.assert_array_equal(answer, generated(model_file, "--count", 3, "--steps", 4, "--seed", 5))


def test_a_request_may_ask_for_bf16(model_file: Path) -> None:
    model = served(model_file)
    answers = [model.predict(None, REQUEST | {"precision": name}) for name in ("bf16", "fp32", "bf16")]
    np.testing.assert_array_equal(answers[0], answers[2])
    assert not np.array_equal(answers[0], answers[1])
    np.testing.assert_array_equal(answers[1], model.predict(None, REQUEST))


def test_missing_and_null_options_have_the_defaults_of_ddpm_generate(model_file: Path) -> None:
    expected = generated(model_file)
    assert len(expected) == 16
    for empty in ({}, dict.fromkeys(("count", "sampler", "eta"))):
        np.testing.assert_array_equal(served(model_file).predict(None, empty), expected)


def test_a_label_is_a_name_or_an_index(make_model: MakeModel) -> None:
    path = make_model(conditional=True)
    expected = generated(path, "--count", 3, "--label", "dog", "--sampler", "ancestral", "--guidance", 1)
    for label in ("dog", 1, ["dog"]):
        options = {"count": 3, "label": label, "sampler": "ancestral", "guidance": 1}
        np.testing.assert_array_equal(served(path).predict(None, options), expected)


@pytest.mark.parametrize(
    "given",
    [
        {"count": 3, "label": ["dog", 0]},
        {"count": np.array(3), "label": np.array(["dog", "0"])},
        pd.DataFrame([{"count": 3, "label": ["1", "cat"]}]),
    ],
)
def test_several_labels_are_drawn_in_turn(given: Any, make_model: MakeModel) -> None:
    path = make_model(conditional=True)
    expected = generated(path, "--count", 3, "--label", "dog", "--label", "cat")
    np.testing.assert_array_equal(served(path).predict(None, given), expected)


@pytest.mark.parametrize(
    "given",
    [
        {key: np.array(value) for key, value in REQUEST.items()},  # "inputs" of the server
        {key: np.array([value]) for key, value in REQUEST.items()},
        pd.DataFrame([REQUEST]),  # "dataframe_records"
        pd.DataFrame([REQUEST | {"label": float("nan")}]),
    ],
)
def test_every_form_of_a_request_gives_the_same_options(given: object) -> None:
    from lab.tracking.served import request

    assert request(given) == request(REQUEST)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (
            {"cuont": 3},
            "cuont: there is no such key; the keys are sampler, count, seed, steps, eta, sigma, spacing, clip,",
        ),
        ({"steps": 11}, "steps = 11: must be at most diffusion.timesteps = 10"),
        ({"steps": "many"}, "steps = many: must be a valid integer"),
        ({"seed": -1, "count": 0}, "seed = -1: must be .*\ncount = 0: must be at least 1"),
        ({"sampler": "euler"}, "sampler = euler: must be 'ancestral', 'ddim' or 'dpm_solver'"),
        ({"sampler": "ancestral", "eta": 0.5}, "eta = 0.5: "),
        ({"count": [3, 4]}, r"count = \[3, 4\]: must be one value"),
        ({"sampler": {"ddim": 1}}, "sampler = {'ddim': 1}: must be one value"),
        ({"label": ["cat", "bird"]}, "label = bird: must be the name or index of a class: 0 cat, 1 dog"),
        ([3], "the request is a list: must be a dictionary with keys of sampler, count"),
    ],
)
def test_an_invalid_request_is_an_error_with_status_400(given: Any, message: str, make_model: MakeModel) -> None:
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


def test_a_packaged_model_contains_its_code_and_no_pickle_and_loads_without_output(
    model_file: Path, tmp_path: Path
) -> None:
    publish._package(model_file, tmp_path / "package/model")
    packed = tmp_path / "package/model"
    assert {path.suffix for path in packed.rglob("*.*")} == {".py", ".safetensors", ".txt", ".yaml", ".json"}
    assert "torch==" in (packed / "requirements.txt").read_text()
    command = [sys.executable, "-c", ELSEWHERE, str(packed)]
    done = subprocess.run(command, cwd=tmp_path, env=environment(), capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    np.testing.assert_array_equal(np.load(tmp_path / "answer.npy"), served(model_file).predict(None, REQUEST))


@pytest.fixture
def client(make_model: MakeModel) -> "TestClient":
    """A client of MLflow's scoring server, in this process, for a conditional model of 10 timesteps."""
    from mlflow.models import Model
    from mlflow.pyfunc import scoring_server
    from starlette.testclient import TestClient

    model = served(make_model(conditional=True))
    loaded = SimpleNamespace(metadata=Model(), predict=lambda data, params=None: model.predict(None, data, params))
    return TestClient(scoring_server.init(loaded), raise_server_exceptions=False)  # type: ignore[arg-type]


def ask(client: "TestClient", content: str | bytes, kind: str = "application/json") -> tuple[int, str]:
    """The status and the text of the server's answer."""
    answer = client.post("/invocations", content=content, headers={"Content-Type": kind})
    assert "Traceback" not in answer.text
    return answer.status_code, answer.text


def test_the_server_answers_requests_of_every_form(client: "TestClient") -> None:
    forms = [{"inputs": {"count": 1, "steps": 1}}, {"dataframe_records": [{"count": 1, "steps": 1}]}]
    answers = [ask(client, json.dumps(form)) for form in forms] + [ask(client, "count,steps\n1,1\n", "text/csv")]
    assert answers[0][0] == 200
    assert np.array(json.loads(answers[0][1])["predictions"]).shape == (1, 4, 4, 1)
    assert len(set(answers)) == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"count": 6554}, "count = 6554: must be at most 6553 in one request, with steps = 10 and images of shape"),
        ({"count": 10**30, "steps": 1}, f"count = {10**30}: must be at most 100,000,000"),
        ({"count": 10**8, "steps": 1}, f"count = {10**8}: must be at most 65536 in one request, with steps = 1 and"),
        ({"count": -1}, "count = -1: must be at least 1"),
        ({"count": True}, "count = True: must be a valid integer"),
        ({"count": 2.5}, "count = 2.5: must be a valid integer"),
        ({"count": "3"}, "count = 3: must be a valid integer"),
        ({"count": []}, "count = []: must be one value"),
        ({"count": {"a": 1}}, "count = {'a': 1}: must be one value"),
        ({"steps": 10**40}, f"steps = {10**40}: must be at most 100,000"),
        ({"seed": 2**63}, f"seed = {2**63}: must be less than {2**63}"),
        ({"clip": 0}, "clip = 0: must be a valid boolean"),
        ({"label": {"a": 1}}, "label = {'a': 1}: must be the name or index of a class: 0 cat, 1 dog"),
        ({"cuont": 3}, "cuont: there is no such key; the keys are sampler, count, seed"),
    ],
)
def test_the_server_refuses_a_request_with_status_400_and_its_reason(
    client: "TestClient", options: dict[str, Any], message: str
) -> None:
    status, text = ask(client, json.dumps({"inputs": options}))
    assert status == 400
    assert message in json.loads(text)["message"]


@pytest.mark.parametrize(
    "content", ["", "{", "[]", "null", b"\xff", '{"inputs": [1, 2]}', '{"inputs": "x"}', '{"x": {}}']
)
def test_the_server_refuses_what_is_no_request_with_status_400(client: "TestClient", content: str | bytes) -> None:
    assert ask(client, content)[0] == 400


def test_the_server_refuses_another_content_type(client: "TestClient") -> None:
    assert ask(client, "{}", "text/html")[0] == 415


@pytest.mark.parametrize(
    ("steps", "shape", "most"),
    [(1000, (3, 32, 32), 65), (50, (3, 32, 32), 1310), (1, (3, 256, 256), 85), (4096, (1, 28, 28), 16)],
)
def test_the_most_images_of_a_request_follow_from_its_steps_and_from_their_size(
    steps: int, shape: tuple[int, int, int], most: int, sample_settings: Sample
) -> None:
    from lab.tracking.served import _check_size

    _check_size(sample_settings.model_copy(update={"steps": steps, "count": most}), shape)
    with pytest.raises(UsageError, match=f"^count = {most + 1}: must be at most {most} in one request"):
        _check_size(sample_settings.model_copy(update={"steps": steps, "count": most + 1}), shape)
