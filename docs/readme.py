"""Write the table of metrics in README.md from reports/metrics.json and reports/protocol.json.

Run as `python -m docs.readme`. A test compares the table with the files.
"""

import json
import re
from pathlib import Path

from lab.pages.markdown import metrics_table

ROOT = Path(__file__).parent.parent
_BLOCK = re.compile(r"(<!-- metrics:.*?-->\n).*?(<!-- end of metrics -->)", re.DOTALL)


def with_metrics(readme: str, reports: Path) -> str:
    """Return the README's text with its table of metrics replaced by that of a folder of reports."""
    metrics, protocol = (json.loads((reports / name).read_text()) for name in ("metrics.json", "protocol.json"))
    table = metrics_table(metrics, protocol)
    return _BLOCK.sub(lambda match: f"{match[1]}\n{table}\n\n{match[2]}", readme)


if __name__ == "__main__":
    path = ROOT / "README.md"
    path.write_text(with_metrics(path.read_text(encoding="utf-8"), ROOT / "reports"), encoding="utf-8")
