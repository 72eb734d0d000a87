"""Who may import whom. Import statements are read with ``ast``, inside functions too."""

from __future__ import annotations

import ast
import functools
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
SOURCES = ("edgekit", "converters", "runtimes/python", "device_profiles")
ENGINES = {"ai_edge_litert", "tflite_runtime", "tensorflow", "onnxruntime"}
FOUNDATION = {"edgekit.artifacts", "edgekit.errors", "edgekit.recipe"}

# folder or file -> (packages from outside, modules of EdgeKit) that it may import besides the standard library
MAY_IMPORT: dict[str, tuple[set[str], set[str]]] = {
    "edgekit/errors.py": (set(), set()),
    "edgekit/artifacts.py": ({"numpy", "msgspec"}, set()),
    "edgekit/recipe.py": ({"msgspec"}, {"edgekit.errors"}),
    "edgekit/atomic.py": (set(), {"edgekit.errors"}),
    "edgekit/isolate.py": (set(), {"edgekit.errors"}),
    "edgekit/bundle": ({"numpy", "msgspec", "cryptography"}, FOUNDATION | {"edgekit.bundle", "edgekit.atomic"}),
    "edgekit/plan": ({"numpy", "msgspec"}, {"edgekit.artifacts", "edgekit.errors", "edgekit.bundle.adaptive",
                                            "edgekit.plan"}),
    "runtimes/python": ({"numpy", "PIL"} | ENGINES, FOUNDATION | {"edgekit.bundle", "edgekit.runtime"}),
    "device_profiles": ({"numpy", "msgspec"}, {"edgekit.errors", "edgekit.artifacts", "edgekit.device_profiles"}),
}
TORCH_MAY_BE_IN = ("converters/torch_to_onnx", "edgekit/train/", "edgekit/zoo/", "edgekit/adaptive/export.py",
                   "edgekit/compress/", "edgekit/demo", "edgekit/cli/export.py", "edgekit/cli/compress.py")
TORCH_HELPERS = {"converters/dynamic_dims.py", "converters/source_lines.py", "converters/quiet.py"}


def python_files(folder: str) -> Iterator[Path]:
    path = ROOT / folder
    if path.is_file():
        yield path
        return
    for file in sorted(path.rglob("*.py")):
        if not any((ROOT / parent).is_symlink() for parent in file.relative_to(ROOT).parents):
            yield file


@functools.cache  # a file is read by several tests
def imports(source: str) -> tuple[tuple[int, str], ...]:
    """Line and dotted name of everything imported; ``from a import b`` counts as ``a.b``."""
    found: list[tuple[int, str]] = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found += ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            found += ((node.lineno, f"{node.module}.{alias.name}") for alias in node.names)
    return tuple(found)


def within(name: str, allowed: set[str]) -> bool:
    return any(name == each or name.startswith(f"{each}.") for each in allowed)


def foreign(source: str, packages: set[str], modules: set[str]) -> list[tuple[int, str]]:
    """The imports in ``source`` that are neither standard nor allowed."""
    found = []
    for line, name in imports(source):
        top = name.partition(".")[0]
        if top == "edgekit":
            if not within(name, modules):
                found.append((line, name))
        elif top not in packages and top not in sys.stdlib_module_names:
            found.append((line, name))
    return found


@pytest.mark.parametrize("part", MAY_IMPORT)
def test_a_part_imports_only_what_it_may(part: str) -> None:
    files = list(python_files(part))
    assert files, f"{part} is gone"
    wrong = [
        f"{file.relative_to(ROOT)}:{line} imports {name}"
        for file in files
        for line, name in foreign(file.read_text(encoding="utf-8"), *MAY_IMPORT[part])
    ]
    assert not wrong


def test_torch_is_imported_only_where_networks_are_exported_or_trained() -> None:
    wrong = []
    for folder in SOURCES:
        for file in python_files(folder):
            name = file.relative_to(ROOT).as_posix()
            if name.startswith(TORCH_MAY_BE_IN) or name in TORCH_HELPERS:
                continue
            lines = imports(file.read_text(encoding="utf-8"))
            wrong += [f"{name}:{line}" for line, what in lines if what.partition(".")[0] in ("torch", "onnxscript")]
    assert not wrong


def test_nothing_imports_the_command_line() -> None:
    wrong = []
    for folder in SOURCES:
        for file in python_files(folder):
            name = file.relative_to(ROOT).as_posix()
            if name.startswith("edgekit/cli/") or name == "edgekit/__main__.py":
                continue
            lines = imports(file.read_text(encoding="utf-8"))
            wrong += [f"{name}:{line}" for line, what in lines if within(what, {"edgekit.cli"})]
    assert not wrong


def test_each_module_has_one_name() -> None:
    wrong = []
    for folder in (*SOURCES, "tests", "benchmarks", "scripts"):
        for file in python_files(folder):
            lines = imports(file.read_text(encoding="utf-8"))
            links = {"converters", "runtimes", "device_profiles"}
            wrong += [f"{file}:{line}" for line, what in lines if what.partition(".")[0] in links]
    assert not wrong


def missing_extras(source: str) -> Iterator[tuple[int, str | None, str]]:
    """Line, package (None where it is computed) and extra of each ``MissingExtra.of(package, extra)``."""
    if "MissingExtra.of" not in source:  # parsing is the slow part
        return
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "MissingExtra.of" and len(node.args) == 2:
            package, extra = (arg.value if isinstance(arg, ast.Constant) else None for arg in node.args)
            if isinstance(extra, str):
                yield node.lineno, package if isinstance(package, str) else None, extra


def test_a_missing_package_is_said_to_be_in_an_extra_that_has_it() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    calls = [(file, *call) for folder in SOURCES for file in python_files(folder)
             for call in missing_extras(file.read_text(encoding="utf-8"))]
    assert len(calls) > 5
    wrong = [f"{file}:{line} {package} [{extra}]" for file, line, package, extra in calls
             if extra not in extras or (package and not any(item.startswith(f"{package}>=") for item in extras[extra]))]
    assert not wrong


def test_the_check_itself_sees_imports_in_functions_and_names_from_packages() -> None:
    source = "import os\ndef f():\n    import torch\n    from edgekit import cli\n    from edgekit.bundle import read\n"
    assert foreign(source, {"numpy"}, {"edgekit.bundle"}) == [(3, "torch"), (4, "edgekit.cli")]
