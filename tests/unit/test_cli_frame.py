"""The frame of the command line: stdout is kept clean, and every failure becomes a line and a code."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import click
import msgspec
import pytest

from edgekit.cli import doctor, root
from edgekit.cli.frame import Frame, Partial, verb
from edgekit.cli.options import NAMED_SHAPE
from edgekit.errors import BadInput, BadModel, InternalError, VerificationFailed

ROOT = Path(__file__).resolve().parents[2]


class Result(msgspec.Struct, frozen=True):
    value: int


def _draw(result: Result) -> str:
    return f"value {result.value}"


def run(function: Any, *arguments: str, capfd: pytest.CaptureFixture[str]) -> tuple[int, str, str]:
    """Exit code, stdout and stderr of a group whose only verb is ``function``."""
    command = verb("try", draw=_draw)(function)
    before = root._Verbs.get_command
    try:
        root._Verbs.get_command = lambda *_: command  # type: ignore[method-assign]
        with pytest.raises(SystemExit) as left:
            root.main(["doctor", *arguments])
    finally:
        root._Verbs.get_command = before  # type: ignore[method-assign]
    out, err = capfd.readouterr()
    assert isinstance(left.value.code, int)
    return left.value.code, out, err


def test_what_libraries_print_never_gets_into_the_object(capfd: pytest.CaptureFixture[str]) -> None:
    def noisy(frame: Frame) -> Result:
        """Print in three ways."""
        print("from python")  # noqa: T201 - the point of the test
        os.write(1, b"from native code\n")
        subprocess.run([sys.executable, "-c", "print('from a child')"], check=True)
        frame.say("said")
        return Result(3)

    code, out, err = run(noisy, "--json", capfd=capfd)
    assert (code, json.loads(out)) == (0, {"value": 3})
    for text in ("from python", "from native code", "from a child", "said"):
        assert text in err
    code, out, _ = run(noisy, capfd=capfd)
    assert (code, out) == (0, "value 3\n")


@pytest.mark.parametrize(("error", "code", "kind"), [
    (BadModel("The file is bad.", "Get another."), 1, "BadModel"),
    (InternalError("Ours.", ""), 70, "InternalError"),
    (ZeroDivisionError("1 / 0"), 70, "InternalError"),
    (RecursionError("deep"), 70, "InternalError"),
    (MemoryError(), 1, "UserError"),
    (KeyboardInterrupt(), 130, "Interrupted"),
    (click.UsageError("Wrong."), 2, "UsageError"),
    (click.BadParameter("Bad."), 2, "UsageError"),
])
def test_every_failure_has_a_line_a_code_and_an_object(
    error: BaseException, code: int, kind: str, capfd: pytest.CaptureFixture[str]
) -> None:
    def fail(_: Frame) -> Result:
        """Fail."""
        raise error

    got, out, err = run(fail, "--json", capfd=capfd)
    failure = json.loads(out)["error"]
    assert (got, failure["exit_code"], failure["type"]) == (code, code, kind)
    assert err.strip().startswith(f"edgekit: error: {failure['message']}")
    assert "Traceback" not in err
    got, out, err = run(fail, "--debug", capfd=capfd)
    assert (got, out) == (code, "")
    assert "Traceback" in err


def test_a_partial_result_is_printed_once_with_the_error(capfd: pytest.CaptureFixture[str]) -> None:
    def half(_: Frame) -> Result:
        """Fail with a result."""
        raise Partial(VerificationFailed("They differ.", "Look."), Result(4))

    code, out, err = run(half, "--json", capfd=capfd)
    assert code == 1
    assert json.loads(out) == {"value": 4, "error": {
        "type": "VerificationFailed", "message": "They differ.", "remedy": "Look.", "exit_code": 1}}
    assert err == "edgekit: error: They differ. Look.\n"
    assert run(half, capfd=capfd)[1] == "value 4\n"


def crash() -> None:
    """Die as a broken parser does."""
    os.abort()


def boom() -> None:
    """Raise what a verb's work raises."""
    raise BadInput("No.", "")


def test_guarded_work_cannot_take_the_process_down() -> None:
    with pytest.raises(BadModel, match="The model 'm' crashed"):
        Frame().guarded("tests.unit.test_cli_frame:crash", subject="The model 'm'")
    for debug in (False, True):
        with pytest.raises(BadInput, match="No"):
            Frame(debug).guarded("tests.unit.test_cli_frame:boom", subject="x")


@pytest.mark.parametrize(("text", "value"), [
    ("x=1,3,224,224", ("x", (1, 3, 224, 224))), ("a=b=2", ("a=b", (2,))), ("serving:0=7", ("serving:0", (7,))),
])
def test_shapes_of_inputs_are_read(text: str, value: tuple[str, tuple[int, ...]]) -> None:
    assert NAMED_SHAPE.convert(text, None, None) == value


@pytest.mark.parametrize("text", ["x", "x=", "=1,2", "x=1,a", "x=1,0", "x=-1,3", "x=1,,2", "x=1.5"])
def test_shapes_that_are_none_are_refused(text: str) -> None:
    with pytest.raises(click.BadParameter, match="sizes of at least 1"):
        NAMED_SHAPE.convert(text, None, None)


def test_doctor_reads_the_extras_that_pyproject_states() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    found = doctor._requirements()
    assert set(found) == {"", *project["optional-dependencies"]} - {"dev"}
    assert dict(found[""]) == dict(line.split(">=") for line in project["dependencies"])
    assert {"torch", "onnx", "ai-edge-litert", "onnxruntime", "pillow"} <= {name for name, _ in found["all"]}


def test_doctor_tells_what_is_missing_too_old_or_there() -> None:
    missing = doctor._extra("ghost", [("no-such-package-at-all", "1.0"), ("numpy", "1.26")])
    assert not missing.ok
    assert missing.install == "pip install 'edgekit-sdk[ghost]'"
    assert [each.ok for each in missing.packages] == [False, True]
    old = doctor._extra("future", [("numpy", "99.0")])
    assert not old.ok
    assert old.packages[0].version is not None
    assert doctor._extra("fine", [("numpy", "1.26")]).install is None


def test_versions_are_compared_as_numbers() -> None:
    assert doctor._numbers("2.13.0+cpu") == (2, 13, 0)
    assert doctor._numbers("2.10") > doctor._numbers("2.9")
    assert doctor._numbers("") == ()


def test_doctor_reports_an_engine_that_cannot_be_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "_ENGINES", (("litert", "numpy", "tests.no_such_module"),))
    (state,) = doctor._engines()
    assert not state.ok
    assert "no_such_module" in state.problem
