"""Fail when a file or a function is larger than what one person reads in one go.

A file may have 400 lines, a function 60. An exception states its reason beside it: ``# size: <reason>`` within the
first ten lines of a file, or on a function's ``def`` line. (The number of parameters is ruff's PLR0913.)

Usage: python scripts/size_budget.py [FOLDER]
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path

__all__ = ["MAX_FILE_LINES", "MAX_FUNCTION_LINES", "violations"]

MAX_FILE_LINES = 400
MAX_FUNCTION_LINES = 60
FOLDERS = ("benchmarks", "converters", "device_profiles", "edgekit", "runtimes", "scripts", "tests")
_REASON = re.compile(r"# size: \S+")


def violations(root: Path) -> list[str]:
    """One line for each file or function under ``root`` that is over its limit without a reason."""
    return [line for path in _files(root) for line in _check(path, path.relative_to(root))]


def _files(root: Path) -> Iterator[Path]:
    for folder in FOLDERS:
        for path in sorted((root / folder).rglob("*.py")):
            linked = any(parent.is_symlink() for parent in path.parents if parent.is_relative_to(root))
            if not linked:
                yield path


def _check(path: Path, name: Path) -> Iterator[str]:
    text = path.read_text(encoding="utf-8")
    lines = text.splitlines()
    if len(lines) > MAX_FILE_LINES and not any(_REASON.search(line) for line in lines[:10]):
        yield f"{name}: {len(lines)} lines, {MAX_FILE_LINES} are allowed"
    try:
        tree = ast.parse(text)
    except SyntaxError as error:
        yield f"{name}:{error.lineno} does not parse: {error.msg}"
        return
    for node in ast.walk(tree):
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        count = (node.end_lineno or node.lineno) - node.lineno + 1
        if count > MAX_FUNCTION_LINES and not _REASON.search(lines[node.lineno - 1]):
            yield f"{name}:{node.lineno} {node.name}: {count} lines, {MAX_FUNCTION_LINES} are allowed"


def main() -> int:
    """Print the violations; the exit code is 1 when there are any."""
    root = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).resolve().parent.parent
    found = violations(root)
    for line in found:
        print(line)
    print(f"size budget: {len(found)} over the limit")
    return 1 if found else 0


if __name__ == "__main__":
    raise SystemExit(main())
