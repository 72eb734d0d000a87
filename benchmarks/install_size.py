"""What ``edgekit-sdk[litert]`` adds to an environment that has ai-edge-litert already, in megabytes.

Two fresh virtual environments, ``du`` over their site-packages: one with ai-edge-litert alone, one with EdgeKit as it
is installed from this repository (not editable). Packages come from the usual index. Budget: 40 MB.

Usage: python benchmarks/install_size.py [--json]
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
BUDGET_MB = 40.0


def site_packages(folder: Path, requirement: str) -> dict[str, float]:
    """MB of each entry of site-packages after installing ``requirement`` into a fresh environment in ``folder``."""
    subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    python = folder / "bin" / "python"
    pip: list[str | Path] = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "-c",
                             ROOT / "constraints.txt"]
    subprocess.run([*pip, requirement], check=True, cwd=folder)
    site = next((folder / "lib").glob("python*/site-packages"))
    output = subprocess.run(["du", "-k", "-d1", site],  # noqa: S607 - du is wherever the system has it
                            check=True, capture_output=True, text=True).stdout
    rows = (line.split("\t") for line in output.splitlines())
    return {Path(path).name: int(kib) * 1024 / 1e6 for kib, path in rows}


def by_suffix(folder: Path) -> dict[str, float]:
    """MB on disk of the files in ``folder``, by the end of their names, the largest first."""
    found: Counter[str] = Counter()
    for path in folder.rglob("*"):
        if path.is_file():
            found[path.suffix] += path.stat().st_blocks * 512
    return {suffix: round(size / 1e6, 1) for suffix, size in found.most_common(4)}


def main() -> int:
    """Print the figures; the exit code is 1 when the budget is exceeded."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        bare = site_packages(Path(folder) / "bare", "ai-edge-litert")
        source = Path(folder) / "source"  # a build leaves its folders beside the source
        shutil.copytree(ROOT, source, symlinks=True, ignore=shutil.ignore_patterns(".*", "build", "*.egg-info"))
        full = site_packages(Path(folder) / "edgekit", f"edgekit-sdk[litert] @ file://{source}")
        ours = by_suffix(next((Path(folder) / "edgekit" / "lib").glob("python*/site-packages/edgekit")))
    added = {name: size - bare.get(name, 0.0) for name, size in full.items() if name != "site-packages"}
    result: dict[str, Any] = {
        "bare_mb": round(bare["site-packages"], 1),
        "edgekit_mb": round(full["site-packages"], 1),
        "added_mb": round(full["site-packages"] - bare["site-packages"], 1),
        "budget_mb": BUDGET_MB,
        "largest_mb": {name: round(size, 1) for name, size in sorted(added.items(), key=lambda item: -item[1])[:6]},
        "edgekit_by_suffix_mb": ours,
    }
    if arguments.json:
        print(json.dumps(result))
    else:
        print(f"ai-edge-litert alone   {result['bare_mb']:7.1f} MB")
        print(f"edgekit-sdk[litert]    {result['edgekit_mb']:7.1f} MB")
        print(f"added                  {result['added_mb']:7.1f} MB of {BUDGET_MB:.0f} allowed")
        print("of which               " + ", ".join(f"{name} {size}" for name, size in result["largest_mb"].items()))
        print("of edgekit itself      " + ", ".join(f"{name} {size}" for name, size in ours.items()))
    return 0 if full["site-packages"] - bare["site-packages"] <= BUDGET_MB else 1


if __name__ == "__main__":
    raise SystemExit(main())
