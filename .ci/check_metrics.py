"""Compare metrics.json with a file of expected values: {"classifier.is": [expected, tolerance], ...}."""

import json
import sys
from pathlib import Path


def look_up(metrics: dict, key: str) -> float:
    """Return the number at a dotted key."""
    for part in key.split("."):
        metrics = metrics[part]
    return float(metrics)


def main(metrics_file: str, expected_file: str) -> None:
    metrics = json.loads(Path(metrics_file).read_text(encoding="utf-8"))
    expected = json.loads(Path(expected_file).read_text(encoding="utf-8"))
    outside = []
    for key, (value, tolerance) in expected.items():
        found = look_up(metrics, key)
        verdict = "ok" if abs(found - value) <= tolerance else "OUTSIDE"
        print(f"{key:<24} {found:10.4f}  expected {value} +- {tolerance}  {verdict}")
        outside += [key] if verdict != "ok" else []
    sys.exit(f"outside of the tolerance: {', '.join(outside)}" if outside else 0)


if __name__ == "__main__":
    main(*sys.argv[1:])
