"""The names of curves in MLflow.

MLflow makes a section of charts for each part of a name before its last slash, and sorts the sections by their names.
Names without a slash come last, in a section of their own. So only curves get slashes: the section with the loss is the
first, and the numbers that are measured once follow under the names that they have in reports/metrics.json.
"""

_CURVES = {
    "loss": "train/loss",
    "gradient_norm": "train/optimizer/gradient_norm",
    "learning_rate": "train/optimizer/learning_rate",
    "rewinds": "train/optimizer/rewinds",
    "images_per_second": "train/optimizer/images_per_second",
    "snapshot.fid": "train/snapshots/fid",
    "snapshot.is": "train/snapshots/is",
}
_KEYS = {name: key for key, name in _CURVES.items()}


def charted(key: str) -> str:
    """The name of a metric in MLflow."""
    return _CURVES.get(key, key)


def key(name: str) -> str:
    """The key of a metric, from its name in MLflow. Earlier versions used the key as the name."""
    return _KEYS.get(name, name)
