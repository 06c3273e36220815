"""Write the table of metrics in README.md from reports/metrics.json.

Run as `python -m docs.readme`. A test compares the two files.
"""

import json
import re
from pathlib import Path

from lab.pages.markdown import metrics_table

ROOT = Path(__file__).parent.parent
_BLOCK = re.compile(r"(<!-- metrics:.*?-->\n).*?(<!-- end of metrics -->)", re.DOTALL)


def with_metrics(readme: str, metrics_file: Path) -> str:
    """Return the README's text with its table of metrics replaced by that of a metrics file."""
    table = metrics_table(json.loads(metrics_file.read_text(encoding="utf-8")))
    return _BLOCK.sub(lambda match: f"{match[1]}\n{table}\n\n{match[2]}", readme)


if __name__ == "__main__":
    path = ROOT / "README.md"
    path.write_text(with_metrics(path.read_text(encoding="utf-8"), ROOT / "reports/metrics.json"), encoding="utf-8")
