"""A trained model as MLflow keeps and serves it: asked with `ddpm generate`'s words, it answers with images.

    model = mlflow.pyfunc.load_model("runs:/RUN/model")
    model.predict({"count": 4, "steps": 20, "seed": 0, "label": None})

    mlflow models serve --model-uri runs:/RUN/model --env-manager local --port 5001
    curl http://localhost:5001/invocations -H "Content-Type: application/json" \\
        -d '{"inputs": {"count": 4, "steps": 20, "seed": 0, "label": null}}'

MLflow stores this file beside the weights and the code it imports, and runs it to load the model: nothing is pickled.
"""

import re
from collections.abc import Mapping
from dataclasses import fields
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
from ddpm.sampling import blocks, options

KEYS = [field.name for field in fields(options.Options)]


class Served(PythonModel):
    """The model file, on this machine's GPU if it has one."""

    def load_context(self, context: Any) -> None:
        """Read the weights."""
        self._model = modelfile.load(Path(context.artifacts["model"]), resolve("auto"))

    def predict(self, context: Any, model_input: pd.DataFrame, params: object = None) -> np.ndarray:  # noqa: ARG002
        """Images, uint8 (N, H, W, C), for a dictionary or a table of one row; what it leaves out suits the model."""
        try:
            asked = request(model_input)
            chosen = options.settings(self._model.description, asked)
            drawn = blocks.draw(self._model, chosen, options.labels(self._model, chosen, asked.label))
        except UsageError as error:
            raise MlflowException.invalid_parameter_value(re.sub(r"--(?=[a-z])", "", str(error))) from None
        return drawn.permute(0, 2, 3, 1).numpy()


def request(given: object) -> options.Options:
    """What is asked for, in any of the forms in which MLflow hands it on. Raises `UsageError`."""
    values = given.to_dict("list") if isinstance(given, pd.DataFrame) else given
    if not isinstance(values, Mapping):
        raise UsageError(f"asked with {type(given).__name__}: must be a dictionary with some of {', '.join(KEYS)}")
    if unknown := [str(key) for key in values if key not in KEYS]:
        raise UsageError(f"{', '.join(unknown)}: there is no such key; there are {', '.join(KEYS)}")
    asked = {key: _single(key, value) for key, value in values.items()}
    if asked.get("label") is not None:
        asked["label"] = str(asked["label"])
    return options.Options(**{key: value for key, value in asked.items() if value is not None})


def _single(key: str, value: Any) -> Any:
    """A value out of the arrays and columns that MLflow makes of it; None for a missing one."""
    while isinstance(value, np.ndarray | list):
        array = np.asarray(value, dtype=object)
        if array.size != 1:
            raise UsageError(f"{key} = {value}: must be one value")
        value = array.item()
    if isinstance(value, Mapping):
        raise UsageError(f"{key} = {value}: must be one value")
    return None if value != value else value  # a table's NaN


set_model(Served())
