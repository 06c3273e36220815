"""Compare the locked packages with the known advisories by pip-audit, where an index of advisories answers.

The exit status is 1 if there is an advisory for a locked package. Without pip-audit or an index it is 0, and the reason
is printed.
"""

import json
import subprocess
import sys
import tempfile
import venv
from pathlib import Path
from typing import Any

LOCK = Path(__file__).parents[1] / "requirements-test.lock"  # with the packages of requirements.lock
PIP_AUDIT = "pip-audit==2.10.1"


def audited(folder: Path) -> dict[str, Any]:
    """The report of pip-audit, which is installed in `folder`. Raises `CalledProcessError` if there is none."""
    venv.create(folder / "venv", with_pip=True)
    python = str(folder / "venv/bin/python")
    _run([python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", PIP_AUDIT])
    report = folder / "report.json"
    options = ["--require-hashes", "--disable-pip", "--progress-spinner", "off", "--format", "json"]
    try:
        _run([python, "-m", "pip_audit", "--requirement", str(LOCK), *options, "--output", str(report)])
    except subprocess.CalledProcessError:
        if not report.exists():  # pip-audit also fails where it finds an advisory
            raise
    return json.loads(report.read_text(encoding="utf-8"))


def _run(command: list[str]) -> None:
    subprocess.run(command, check=True, capture_output=True, encoding="utf-8", timeout=600)


def found(report: dict[str, Any]) -> tuple[int, list[str]]:
    """The number of packages that the index has, and a line for each advisory."""
    known = [package for package in report["dependencies"] if "skip_reason" not in package]
    lines = [
        f"{package['name']} {package['version']}: {advisory['id']}, "
        f"fixed in {', '.join(advisory['fix_versions']) or 'no version'}"
        for package in known
        for advisory in package["vulns"]
    ]
    return len(known), lines


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        try:
            count, advisories = found(audited(Path(folder)))
        except (subprocess.CalledProcessError, subprocess.TimeoutExpired) as error:
            reason = [str(error), *(error.stderr or "").strip().splitlines()][-1]
            print(f"audit: nothing is compared: {reason}")
            return
    if not count:
        print("audit: nothing is compared: the index of advisories has none of the packages")
    elif not advisories:
        print(f"audit: no advisory for {count} packages")
    else:
        print(*advisories, sep="\n")
        sys.exit(f"audit: {len(advisories)} advisories for {count} packages")


if __name__ == "__main__":
    main()
