"""The model as MLflow keeps and serves it; it takes the options of `ddpm generate`.

    model = mlflow.pyfunc.load_model("runs:/RUN/model")
    model.predict({"count": 4, "steps": 20, "seed": 0, "label": None})  # or a class, or a list of classes

    mlflow models serve --model-uri runs:/RUN/model --env-manager local --port 5001
    curl http://localhost:5001/invocations -H "Content-Type: application/json" \\
        -d '{"inputs": {"count": 4, "steps": 20, "seed": 0, "label": null}}'

MLflow stores this file with the weights and the package `ddpm`, and runs it to load the model. Nothing is pickled.
"""

from collections.abc import Mapping
from dataclasses import fields
from functools import cache, partial
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from mlflow.exceptions import MlflowException
from mlflow.models import set_model
from mlflow.pyfunc.model import PythonModel

from ddpm.device import resolve
from ddpm.errors import UsageError
from ddpm.network import modelfile
from ddpm.params import ConflictError, Sample
from ddpm.sampling import blocks
from ddpm.sampling.options import Options, settings

KEYS = [field.name for field in fields(Options)]
_EVALUATIONS = 2**16  # images x steps of one request: 16 images in 4096 steps, or 1310 in 50
_VALUES = 2**24  # of all images of one request, which MLflow sends as text: about 60 MB


class Served(PythonModel):
    """A model file, on the GPU if there is one."""

    def load_context(self, context: Any) -> None:
        """Load the model; in bf16 it is loaded by the first request for that precision."""
        self._load = cache(partial(modelfile.load, Path(context.artifacts["model"]), resolve("auto")))
        self._load("fp32")

    def predict(self, context: Any, model_input: pd.DataFrame, params: object = None) -> np.ndarray:  # noqa: ARG002
        """Sample images, uint8 (N, H, W, C), for a dictionary of options or a table with one row of them."""
        try:
            options = request(model_input)
            chosen = settings(self._load("fp32").description, options)
            _check_size(chosen, self._load("fp32").description.image_shape)
            model = self._load(chosen.precision)
            images = blocks.draw(model, chosen, blocks.labels(model, chosen, options.label))
        except UsageError as error:
            conflicts = error.conflicts if isinstance(error, ConflictError) else []
            lines = [f"{one.key.rpartition('.')[2]} = {one.value}: {one.rule}" for one in conflicts]
            raise MlflowException.invalid_parameter_value("\n".join(lines) or str(error)) from None
        return images.permute(0, 2, 3, 1).numpy()


def _check_size(chosen: Sample, image_shape: tuple[int, int, int]) -> None:
    """Raise `UsageError` for a request that would take too long, or whose answer would be too large."""
    most = max(1, min(_EVALUATIONS // chosen.steps, _VALUES // prod(image_shape)))
    if chosen.count > most:
        raise UsageError(
            f"count = {chosen.count}: must be at most {most} in one request, with steps = {chosen.steps} and images of "
            f"shape {image_shape}; `ddpm generate` has no such limit"
        )


def request(given: object) -> Options:
    """Read options in any of the forms that MLflow passes on. Raises `UsageError`."""
    values = given.to_dict("list") if isinstance(given, pd.DataFrame) else given
    if not isinstance(values, Mapping):
        raise UsageError(
            f"the request is a {type(given).__name__}: must be a dictionary with keys of {', '.join(KEYS)}"
        )
    if unknown := [str(key) for key in values if key not in KEYS]:
        raise UsageError(f"{', '.join(unknown)}: there is no such key; the keys are {', '.join(KEYS)}")
    read: dict[str, Any] = {
        key: _labels(value) if key == "label" else _single(key, value) for key, value in values.items()
    }
    return Options(**{key: value for key, value in read.items() if value is not None})


def _labels(value: Any) -> list[str] | None:
    """One label or several, in the arrays and columns that MLflow wraps them in. None if there are none."""
    found = np.asarray(value, dtype=object).ravel()
    return [str(label) for label in found if label is not None and label == label] or None  # NaN in a table


def _single(key: str, value: Any) -> Any:
    """The value in the arrays and columns that MLflow wraps it in. None if it is missing."""
    array = np.asarray(value, dtype=object)
    if array.size != 1 or isinstance(array.item(), Mapping):
        raise UsageError(f"{key} = {value}: must be one value")
    return None if array.item() != array.item() else array.item()  # NaN in a table


set_model(Served())
