"""Every module says what is public, and all of it exists and is documented."""

from __future__ import annotations

import ast
import importlib
import importlib.metadata
import inspect
import pkgutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import edgekit

ROOT = Path(__file__).resolve().parent.parent
MODULES = sorted(
    module.name
    for module in pkgutil.walk_packages(edgekit.__path__, "edgekit.")
    if not module.name.endswith("__main__")
)


def test_the_walk_reaches_the_linked_folders() -> None:
    assert {"edgekit.converters", "edgekit.runtime", "edgekit.device_profiles", "edgekit.cli.root"} <= set(MODULES)


@pytest.mark.parametrize("name", MODULES)
def test_all_is_true_and_documented(name: str) -> None:
    module = importlib.import_module(name)
    assert module.__doc__, f"{name} has no docstring"
    exported = getattr(module, "__all__", None)
    if exported is None:
        body = ast.parse(inspect.getsource(module)).body
        assert len(body) == 1, f"{name} has code and no __all__"  # a docstring alone: a folder of modules
        return
    assert len(set(exported)) == len(exported), f"{name}.__all__ names something twice"
    for public in exported:
        value = getattr(module, public)
        if inspect.isfunction(value) or inspect.isclass(value):
            assert inspect.getdoc(value), f"{name}.{public} has no docstring"


def test_every_public_name_of_the_package_resolves_and_is_listed() -> None:
    for name in edgekit.__all__:
        assert getattr(edgekit, name) is not None
    assert set(edgekit.__all__) <= set(dir(edgekit))
    lazy = {name for names in edgekit._HOME.values() for name in names}
    assert lazy | {"__version__", "errors"} == set(edgekit.__all__)


def test_a_name_that_does_not_exist_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'frobnicate'"):
        _ = edgekit.frobnicate


def loaded_after(statement: str) -> set[str]:
    """The top-level packages that a fresh interpreter has loaded after ``statement``."""
    code = f"import sys\n{statement}\nprint(*{{name.partition('.')[0] for name in sys.modules}})"
    return set(subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.split())


def test_importing_the_package_is_light() -> None:
    loaded = loaded_after("import edgekit")
    assert "edgekit" in loaded
    assert not loaded & {"numpy", "msgspec", "torch", "onnx", "onnxruntime", "ai_edge_litert", "PIL", "click", "rich"}


def test_importing_the_runtime_loads_no_converter() -> None:
    loaded = loaded_after("import edgekit.runtime")
    assert "numpy" in loaded
    assert not loaded & {"torch", "onnx", "onnxscript", "PIL", "click", "rich", "cryptography"}


def test_the_command_line_starts_without_heavy_packages() -> None:
    loaded = loaded_after("import edgekit.cli\nfor verb in edgekit.cli.root.VERBS: __import__(f'edgekit.cli.{verb}')")
    assert "click" in loaded
    assert not loaded & {"torch", "onnx", "onnxruntime", "ai_edge_litert", "PIL", "rich", "cryptography"}


def test_there_is_one_version() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert edgekit.__version__ == project["version"] == importlib.metadata.version("edgekit-sdk")
    assert f"## [{edgekit.__version__}]" in (ROOT / "CHANGELOG.md").read_text()
