"""``edgekit doctor``: what is installed, what works, and the pip line for what is missing."""

from __future__ import annotations

import importlib
import os
import platform
import re
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

import msgspec

from edgekit.cli.draw import Drawing, Group, Table, Text
from edgekit.cli.frame import Frame, Partial, verb
from edgekit.errors import EdgeKitError, EngineError

__all__ = ["Cpu", "Doctor", "EngineState", "Extra", "Package", "doctor", "try_import"]

_DISTRIBUTION = "edgekit-sdk"
_HIDDEN_EXTRAS = ("dev",)  # for those who work on EdgeKit itself
#: In the order in which the runtime tries them.
_ENGINES = (
    ("litert", "ai-edge-litert", "ai_edge_litert.interpreter"),
    ("litert", "tflite-runtime", "tflite_runtime.interpreter"),
    ("litert", "tensorflow", "tensorflow.lite"),
    ("ort", "onnxruntime", "onnxruntime"),
)
_FEATURES = (
    "avx2", "fma", "avx_vnni", "avx512f", "avx512_vnni", "avx512_bf16", "amx_int8",  # x86
    "asimd", "asimddp", "asimdhp", "i8mm", "bf16", "sve", "sme",  # ARM
)


class Package(msgspec.Struct, frozen=True):
    """``version`` is None when it is not installed; ``ok``: installed, and at least ``needed``."""

    name: str
    needed: str
    version: str | None
    ok: bool


class Extra(msgspec.Struct, frozen=True):
    """An optional set of packages; ``install`` is the command that adds it, None when nothing is missing."""

    name: str
    ok: bool
    packages: tuple[Package, ...]
    install: str | None


class EngineState(msgspec.Struct, frozen=True):
    """An installed engine package; ``problem`` says why it does not work ("" when it does)."""

    engine: str
    package: str
    version: str
    ok: bool
    problem: str


class Cpu(msgspec.Struct, frozen=True):
    """``usable`` counts the logical processors that this process may use; ``features`` is None where unknown."""

    machine: str
    logical: int
    usable: int
    features: tuple[str, ...] | None


class Doctor(msgspec.Struct, frozen=True):
    """``ok`` is False when something that is installed is broken; a missing extra is no failure."""

    edgekit: str
    python: str
    platform: str
    cpu: Cpu
    base: tuple[Package, ...]
    extras: tuple[Extra, ...]
    engines: tuple[EngineState, ...]
    ok: bool


def _draw(result: Doctor) -> Drawing:

    cpu = result.cpu
    features = "unknown" if cpu.features is None else " ".join(cpu.features) or "none of those that matter"
    head = Text(
        f"EdgeKit {result.edgekit}, Python {result.python}, {result.platform}\n"
        f"CPU {cpu.machine}, {cpu.usable} of {cpu.logical} logical processors usable, features: {features}\n"
    )
    engines = Table("engine", "package", "version", "works")
    for each in result.engines:
        engines.add_row(each.engine, each.package, each.version, Text("yes" if each.ok else f"NO: {each.problem}"))
    extras = Table("extra", "state", "packages")
    for extra in result.extras:
        packages = Text(", ".join(f"{each.name} {each.version or 'missing'}" for each in extra.packages))
        extras.add_row(extra.name, "present" if extra.ok else "missing", packages)
    missing = "\n".join(f"{extra.name:8} {extra.install}" for extra in result.extras if extra.install)
    tail = Text(f"\nTo install what is missing:\n{missing}" if missing else "\nEverything is present.")
    return Group(head, engines, Text(), extras, tail)


@verb("doctor", draw=_draw)
def doctor(frame: Frame) -> Doctor:
    """Tell what works here and what is missing.

    Packages, engines (each is tried), processor, and the pip line for every optional set that is not installed.
    """
    from edgekit import __version__

    requirements = _requirements()
    base = tuple(_package(*each) for each in requirements.pop("", []))
    with frame.working("Trying the engines"):
        engines = tuple(_engines())
    broken = [each.name for each in base if not each.ok]
    broken += [each.package for each in engines if not each.ok]
    result = Doctor(
        edgekit=__version__,
        python=platform.python_version(),
        platform=platform.platform(),
        cpu=_cpu(),
        base=base,
        extras=tuple(_extra(name, packages) for name, packages in requirements.items()),
        engines=engines,
        ok=not broken,
    )
    if broken:
        raise Partial(EngineError(f"Installed but not working: {', '.join(broken)}.",
                                  f"Install anew with: pip install --force-reinstall {' '.join(broken)}"), result)
    return result


def _requirements() -> dict[str, list[tuple[str, str]]]:
    """Extra -> [(package, lower bound)], from the metadata of the installed distribution; "" is the base.

    pyproject.toml writes every requirement as ``name>=version`` or ``edgekit-sdk[extra,...]``.
    """
    found: dict[str, list[tuple[str, str]]] = {"": []}
    try:
        distribution = metadata.distribution(_DISTRIBUTION)
    except metadata.PackageNotFoundError:
        return found  # run from a source tree that was never installed
    for extra in distribution.metadata.get_all("Provides-Extra") or []:
        found[extra] = []
    for line in distribution.requires or []:
        requirement, _, marker = line.partition(";")
        extra = re.search(r"""extra == ["']([^"']+)""", marker)
        name, _, bound = requirement.strip().partition(">=")
        found[extra[1] if extra else ""].append((name.strip(), bound.strip()))
    return {extra: sorted(set(_flat(found, extra))) for extra in found if extra not in _HIDDEN_EXTRAS}


def _flat(found: dict[str, list[tuple[str, str]]], extra: str) -> Iterator[tuple[str, str]]:
    for name, bound in found[extra]:
        if name.startswith(f"{_DISTRIBUTION}["):
            for other in name[len(_DISTRIBUTION) + 1 : -1].split(","):
                yield from _flat(found, other.strip())
        else:
            yield name, bound


def _package(name: str, needed: str) -> Package:
    try:
        version = metadata.version(name)
    except metadata.PackageNotFoundError:
        return Package(name, needed, None, ok=False)
    return Package(name, needed, version, ok=_numbers(version) >= _numbers(needed))


def _numbers(version: str) -> tuple[int, ...]:
    """The release number of ``version``, as far as it is made of numbers."""
    match = re.match(r"\d+(\.\d+)*", version)
    return tuple(int(part) for part in match[0].split(".")) if match else ()


def _extra(name: str, requirements: list[tuple[str, str]]) -> Extra:
    packages = tuple(_package(*each) for each in requirements)
    ok = all(each.ok for each in packages)
    return Extra(name, ok, packages, None if ok else f"pip install '{_DISTRIBUTION}[{name}]'")


def _engines() -> Iterator[EngineState]:
    from edgekit import isolate

    for engine, package, module in _ENGINES:
        try:
            version = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
        problem = ""
        try:
            isolate.call("edgekit.cli.doctor:try_import", module, timeout_s=120, subject=f"Importing {package}")
        except EdgeKitError as error:
            problem = error.message.strip().splitlines()[-1]
        yield EngineState(engine, package, version, ok=not problem, problem=problem)


def try_import(module: str) -> None:
    """Import ``module``; called in a child process, which a broken native library may take down."""
    importlib.import_module(module)


def _cpu() -> Cpu:
    logical = os.cpu_count() or 1
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else logical
    return Cpu(platform.machine(), logical, usable, _features())


def _features() -> tuple[str, ...] | None:
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None  # not Linux
    line = re.search(r"^(?:flags|Features)\s*:(.*)$", text, re.MULTILINE)
    present = set(line[1].split()) if line else set()
    return tuple(name for name in _FEATURES if name in present)
