"""Write the tables of metrics in README.md from reports/metrics.json and reports/protocol.json.

Run as `python -m docs.readme`. A test compares the tables with the files.
"""

import json
import re
from pathlib import Path

from lab.pages import summary
from lab.pages.markdown import metrics_table, table

ROOT = Path(__file__).parent.parent


def with_metrics(readme: str, reports: Path) -> str:
    """Return the README's text with its tables of metrics replaced by those of a folder of reports."""
    metrics, protocol = (
        json.loads((reports / name).read_text(encoding="utf-8")) for name in ("metrics.json", "protocol.json")
    )
    extractor = protocol["extractor"]
    head = (f"measured with {summary.EXTRACTORS[extractor]}", f"{protocol['samples']} samples", "for comparison")
    readme = _replaced(readme, "summary", table(head, summary.numbers(metrics[extractor]), mark=""))
    return _replaced(readme, "metrics", metrics_table(metrics, protocol))


def _replaced(readme: str, name: str, content: str) -> str:
    """The text with another content between the two comments of a block."""
    block = re.compile(rf"(<!-- {name}:.*?-->\n).*?(<!-- end of {name} -->)", re.DOTALL)
    return block.sub(lambda match: f"{match[1]}\n{content}\n\n{match[2]}", readme)


if __name__ == "__main__":
    path = ROOT / "README.md"
    path.write_text(with_metrics(path.read_text(encoding="utf-8"), ROOT / "reports"), encoding="utf-8")
