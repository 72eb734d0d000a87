"""The shape of the repository and of what is built from it."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest

from tests.scripts import load_script

ROOT = Path(__file__).resolve().parent.parent
LINKS = {"converters": "../converters", "runtime": "../runtimes/python", "device_profiles": "../device_profiles"}
NORMALISED = re.compile(r"[-_.]+")


def tracked() -> list[str]:
    """The files that belong to the repository, ignored ones left out; skips outside a git checkout."""
    if not (ROOT / ".git").exists():
        pytest.skip("needs a git checkout")
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    output = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    return [name for name in output.splitlines() if (ROOT / name).exists()]


@pytest.mark.parametrize("name", LINKS)
def test_the_linked_folders_are_relative_links(name: str) -> None:
    link = ROOT / "edgekit" / name
    assert link.is_symlink(), "on Windows set core.symlinks=true before cloning (CONTRIBUTING.md)"
    assert str(link.readlink()) == LINKS[name]
    assert (link / "__init__.py").is_file()


def test_there_are_no_other_links() -> None:
    links = {path.name for path in (ROOT / "edgekit").rglob("*") if path.is_symlink()}
    assert links == set(LINKS)


def test_there_are_no_empty_folders_for_things_to_come() -> None:
    files = tracked()
    assert {name.split("/")[1] for name in files if name.startswith("runtimes/") and name.count("/") > 1} <= {
        "conformance", "python",
    }


def test_no_file_names_the_machine_it_was_written_on() -> None:
    pattern = re.compile("/(?:" + "work|farm|root|tmp/bash_jobs|opt/pypi|opt/wheels" + ")/")
    found = []
    for name in tracked():
        path = ROOT / name
        if path.is_symlink() or path.stat().st_size > 1_000_000:
            continue
        try:
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue
        found += [f"{name}:{number}" for number, line in enumerate(text.splitlines(), 1) if pattern.search(line)]
    assert not found


def test_every_lint_exception_gives_its_reason() -> None:
    found = []
    for name in tracked():
        if not name.endswith(".py"):
            continue
        for number, line in enumerate((ROOT / name).read_text(encoding="utf-8").splitlines(), 1):
            if re.search(r"# noqa: [A-Z0-9, ]+$", line):
                found.append(f"{name}:{number}")
    assert not found, "write: # noqa: RULE - reason"


def test_files_and_functions_are_within_the_size_budget() -> None:
    assert load_script("size_budget").violations(ROOT) == []


def test_the_size_budget_sees_what_is_too_large(tmp_path: Path) -> None:
    folder = tmp_path / "edgekit"
    folder.mkdir()
    body = "\n".join(["    x = 1"] * 60)
    (folder / "a.py").write_text(f"def long():\n{body}\n\n\ndef excused():  # size: a table of cases\n{body}\n")
    (folder / "b.py").write_text("x = 1\n" * 401)
    (folder / "c.py").write_text("# size: generated\n" + "x = 1\n" * 401)
    found = load_script("size_budget").violations(tmp_path)
    assert found == [
        "edgekit/a.py:1 long: 61 lines, 60 are allowed",
        "edgekit/b.py: 401 lines, 400 are allowed",
    ]


def requirements(lines: list[str]) -> set[str]:
    names = {re.split(r"[\[>=<;]", line)[0].strip() for line in lines}
    return {NORMALISED.sub("-", name).lower() for name in names} - {"edgekit-sdk"}


def test_every_requirement_has_a_tested_version() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = requirements(project["dependencies"])
    for lines in project["optional-dependencies"].values():
        wanted |= requirements(lines)
    pins = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if line and not line.startswith("#")]
    assert all("==" in pin for pin in pins)
    assert wanted <= requirements(pins)


def test_bounds_are_plain_lower_bounds_and_the_light_base_is_light() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert requirements(project["dependencies"]) == {"numpy", "msgspec", "cryptography", "click"}
    extras = project["optional-dependencies"]
    assert {"litert", "ort", "convert", "train", "report", "all", "dev"} <= set(extras)
    for line in [*project["dependencies"], *(line for lines in extras.values() for line in lines)]:
        assert re.fullmatch(r"[\w-]+>=[\d.]+|edgekit-sdk\[[\w,]+\]", line), f"edgekit doctor cannot read '{line}'"


def test_the_commands_of_the_first_screen_are_those_that_ci_runs() -> None:
    readme = (ROOT / "README.md").read_text()[:3000]
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert {"demo", "test", "slow", "lint", "types", "budget"} <= targets
    assert "make demo" in readme
    assert "make test" in readme
    steps = re.findall(r"^step (\w+)$", (ROOT / ".ci" / "run").read_text(), re.MULTILINE)
    assert steps[0] == "test"
    assert set(steps) == {"test", "slow", "lint", "types", "budget"}


def test_the_commands_of_the_results_page_exist() -> None:
    text = (ROOT / "docs" / "results.md").read_text()
    commands = re.findall(r"^python (?:-m (\S+)|(\S+\.py))", text, re.MULTILINE)
    assert len(commands) >= 5
    for module, script in commands:
        assert (ROOT / (script or f"{module.replace('.', '/')}.py")).is_file(), module or script


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the sdist of this tree and the wheel that was built from the sdist."""
    source = tmp_path_factory.mktemp("source") / "tree"
    ignore = shutil.ignore_patterns(".git", ".venv", "build", "dist", "*.egg-info", ".*_cache", "__pycache__")
    shutil.copytree(ROOT, source, symlinks=True, ignore=ignore)
    out = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(out), str(source)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    return out


def expected_files() -> set[str]:
    kept = (".py", ".json", ".txt", ".edge", "py.typed")
    found = set()
    for real, link in [("edgekit", "edgekit"), *((f"edgekit/{name}", f"edgekit/{name}") for name in LINKS)]:
        for folder, _, names in os.walk(ROOT / real):
            if "__pycache__" not in folder:
                place = Path(link) / Path(folder).relative_to(ROOT / real)
                found |= {(place / name).as_posix() for name in names if name.endswith(kept)}
    return found


@pytest.mark.slow
def test_the_wheel_holds_real_folders_and_everything_in_them(built: Path) -> None:
    (wheel,) = built.glob("edgekit_sdk-*.whl")
    with zipfile.ZipFile(wheel) as archive:
        infos = [info for info in archive.infolist() if ".dist-info/" not in info.filename]
        assert not [info.filename for info in infos if (info.external_attr >> 16) & 0o170000 == 0o120000]
        names = {info.filename for info in infos if not info.is_dir()}
    assert names == expected_files()


@pytest.mark.slow
def test_the_sdist_holds_real_folders(built: Path) -> None:
    (sdist,) = built.glob("edgekit_sdk-*.tar.gz")
    with tarfile.open(sdist) as archive:
        assert not [member.name for member in archive.getmembers() if member.issym() or member.islnk()]
        names = {member.name.partition("/")[2] for member in archive.getmembers() if member.isfile()}
    assert expected_files() <= names


@pytest.mark.slow
def test_an_unpacked_wheel_works_away_from_the_repository(built: Path, tmp_path: Path) -> None:
    (wheel,) = built.glob("edgekit_sdk-*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "site")
    code = "import edgekit, edgekit.runtime, edgekit.converters, edgekit.device_profiles as d; " \
           "print(edgekit.__file__); print('Google Pixel 3' in {each.device for each in d.load_profiles()})"
    environment = {**os.environ, "PYTHONPATH": str(tmp_path / "site")}
    command = [sys.executable, "-P", "-c", code]
    lines = subprocess.run(command, cwd=tmp_path, env=environment, check=True, capture_output=True, text=True).stdout
    assert lines.splitlines() == [str(tmp_path / "site" / "edgekit" / "__init__.py"), "True"]
