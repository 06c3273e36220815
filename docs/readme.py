"""Write the README's table of metrics from reports/metrics.json, so that the two cannot disagree.

python -m docs.readme
"""

import json
import re
from pathlib import Path

from lab.pages.markdown import metrics_table

ROOT = Path(__file__).parent.parent
_BLOCK = re.compile(r"(<!-- metrics:.*?-->\n).*?(<!-- end of metrics -->)", re.DOTALL)


def with_metrics(readme: str, metrics_file: Path) -> str:
    """The README's text with the table of a metrics file."""
    table = metrics_table(json.loads(metrics_file.read_text(encoding="utf-8")))
    return _BLOCK.sub(lambda match: f"{match[1]}\n{table}\n\n{match[2]}", readme)


if __name__ == "__main__":
    path = ROOT / "README.md"
    path.write_text(with_metrics(path.read_text(encoding="utf-8"), ROOT / "reports/metrics.json"), encoding="utf-8")
