from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from edgekit import isolate
from edgekit.errors import BadInput, BadModel, EdgeKitError, InternalError, UnsupportedOps
from tests.nursery import START

TARGETS = """
import ctypes, os, signal, subprocess, sys, time
from pathlib import Path
from edgekit.errors import BadInput, EdgeKitError, UnsupportedOps

class Awkward(EdgeKitError):
    def __init__(self, message, number):
        super().__init__(message)
        self.number = number
    def __reduce__(self):
        return (Awkward, (self.message,))

class Unpicklable(BadInput):
    def __reduce__(self):
        raise TypeError("no")

class Deaf:
    def __reduce__(self):
        return (int, ("not a number",))

def add(a, b): return a + b
def big(size): return b"\\x5a" * size
def where(): return os.getpid(), os.getppid()
def bad_input(): raise BadInput("The input is odd.", "Give another.")
def many(): raise UnsupportedOps("A\\nB", "C")
def awkward(): raise Awkward("first", 2)
def unpicklable(): raise Unpicklable("secret")
def boom(): raise ValueError("boom " + "x" * 3)
def kill(number): os.kill(os.getpid(), number)
def abort(): os.abort()
def null(): ctypes.string_at(0)
def sleep(seconds): time.sleep(seconds)
def a_lambda(): return lambda: 1
def deaf(): return Deaf()
def leave(code): os._exit(code)
def exit_politely(): sys.exit("gone")
def no_memory(): return bytearray(1 << 62)
def chat(): print("on stdout"); print("on stderr", file=sys.stderr); os.write(1, b"native stdout"); return 1
def chat_and_die(): os.write(2, b"engine: op 7 is odd\\n"); os.abort()
def chat_and_raise(): os.write(2, b"engine: hint\\n"); raise BadInput("odd")
def core_limit():
    import resource
    return resource.getrlimit(resource.RLIMIT_CORE)[0]
def grandchild(path):
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    Path(path).write_text(str(child.pid))
    time.sleep(60)
def nested():
    from edgekit import isolate
    try:
        isolate.call("isolate_targets:abort")
    except EdgeKitError as error:
        return error.message
"""


@pytest.fixture(autouse=True)
def _targets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(isolate, "_start", START)
    (tmp_path / "isolate_targets.py").write_text(TARGETS)
    monkeypatch.syspath_prepend(tmp_path)
    yield
    sys.modules.pop("isolate_targets", None)


@pytest.fixture(params=["fork", "fresh"])
def start(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Both ways to start a child. Forking is safe for these targets, whatever this test process has loaded."""
    way: str = request.param
    if way == "fork" and sys.platform != "linux":
        pytest.skip("forks on Linux only")
    monkeypatch.setattr(isolate, "_fork_is_safe", lambda: way == "fork")
    return way


def run(name: str, *args: object, timeout_s: float = 60, subject: str = "") -> object:
    return isolate.call(f"isolate_targets:{name}", *args, timeout_s=timeout_s, subject=subject)


def no_child_is_left() -> bool:
    try:
        return os.waitpid(-1, os.WNOHANG) == (0, 0)
    except ChildProcessError:
        return True


@pytest.mark.usefixtures("start")
class TestCall:
    def test_result(self) -> None:
        assert run("add", [1], [2]) == [1, 2]
        assert no_child_is_left()

    def test_it_is_another_process(self) -> None:
        found = run("where")
        assert isinstance(found, tuple)
        assert found[0] != os.getpid()
        assert found[1] == os.getpid()

    def test_a_result_of_50_megabytes(self) -> None:
        assert run("big", 50_000_000) == b"\x5a" * 50_000_000

    def test_an_argument_of_50_megabytes(self) -> None:
        assert run("add", b"\x5a" * 50_000_000, b"!") == b"\x5a" * 50_000_000 + b"!"

    def test_our_errors_come_back_as_they_are(self) -> None:
        with pytest.raises(BadInput) as caught:
            run("bad_input")
        assert (caught.value.message, caught.value.remedy) == ("The input is odd.", "Give another.")
        with pytest.raises(UnsupportedOps, match="A\nB C"):
            run("many")

    @pytest.mark.parametrize(("name", "text"), [("awkward", "first"), ("unpicklable", "secret")])
    def test_one_of_our_errors_that_cannot_be_sent(self, name: str, text: str) -> None:
        with pytest.raises(InternalError, match=text):
            run(name)

    def test_a_plain_exception_is_our_bug_and_shows_its_traceback(self) -> None:
        with pytest.raises(InternalError, match=r"(?s)Reading 'm' failed.*in boom.*ValueError: boom xxx"):
            run("boom", subject="Reading 'm'")

    @pytest.mark.parametrize("name", ["a_lambda", "deaf"])
    def test_a_result_that_cannot_be_sent(self, name: str) -> None:
        with pytest.raises(InternalError):
            run(name)
        assert no_child_is_left()

    def test_an_argument_that_cannot_be_sent(self) -> None:
        with pytest.raises(InternalError, match="arguments of isolate_targets:add cannot be sent"):
            run("add", lambda: 1, 2)

    def test_an_unknown_target(self) -> None:
        with pytest.raises(InternalError, match="no_such_function"):
            run("no_such_function")

    @pytest.mark.parametrize("name", ["SIGSEGV", "SIGABRT", "SIGFPE", "SIGBUS", "SIGILL", "SIGKILL"])
    def test_death_by_a_signal(self, name: str) -> None:
        with pytest.raises(BadModel, match=name) as caught:
            run("kill", signal.Signals[name].value, subject="The model 'm.tflite'")
        assert caught.value.message.startswith("The model 'm.tflite' ")
        assert caught.value.remedy
        assert no_child_is_left()

    @pytest.mark.parametrize(("name", "expected"), [("abort", "SIGABRT"), ("null", "SIGSEGV")])
    def test_real_crashes(self, name: str, expected: str) -> None:
        with pytest.raises(BadModel, match=expected):
            run(name)

    @pytest.mark.parametrize(("code", "text"), [(0, "without an answer"), (1, "exit code 1"), (70, "exit code 70")])
    def test_exit_from_native_code(self, code: int, text: str) -> None:
        with pytest.raises(BadModel, match=text):
            run("leave", code)

    def test_exit_from_python(self) -> None:
        with pytest.raises(InternalError, match="SystemExit: gone"):
            run("exit_politely")

    def test_memory_runs_out(self) -> None:
        with pytest.raises(BadModel, match="more memory than there is"):
            run("no_memory")

    def test_time_out(self) -> None:
        begin = time.monotonic()
        with pytest.raises(BadModel, match=r"did not finish within 0\.5 s"):
            run("sleep", 30, timeout_s=0.5)
        assert time.monotonic() - begin < 5
        assert no_child_is_left()

    def test_a_time_out_ends_the_grandchildren_too(self, tmp_path: Path) -> None:
        with pytest.raises(BadModel, match="did not finish"):
            run("grandchild", str(tmp_path / "pid"), timeout_s=2)
        grandchild = int((tmp_path / "pid").read_text())
        for _ in range(100):
            if not is_running(grandchild):
                return
            time.sleep(0.05)
        pytest.fail("the grandchild is still running")

    def test_an_interrupt_ends_the_child(self) -> None:
        timer = threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGINT))
        timer.start()
        with pytest.raises(KeyboardInterrupt):
            run("sleep", 30)
        timer.join()
        assert no_child_is_left()

    def test_an_interrupt_while_the_child_is_made_ends_it_too(self, monkeypatch: pytest.MonkeyPatch) -> None:
        start = isolate._start

        def interrupted(*arguments: Any) -> Any:
            child = start(*arguments)
            os.kill(os.getpid(), signal.SIGINT)
            return child

        monkeypatch.setattr(isolate, "_start", interrupted)
        with pytest.raises(KeyboardInterrupt):
            run("sleep", 30)
        assert no_child_is_left()

    def test_what_the_child_prints_goes_nowhere(self, capfd: pytest.CaptureFixture[str]) -> None:
        assert run("chat") == 1
        assert capfd.readouterr() == ("", "")

    @pytest.mark.parametrize(("name", "kind", "text"), [
        ("chat_and_die", BadModel, "engine: op 7 is odd"), ("chat_and_raise", BadInput, "engine: hint")])
    def test_what_it_printed_last_is_a_note_of_the_error(
            self, name: str, kind: type[EdgeKitError], text: str, capfd: pytest.CaptureFixture[str]) -> None:
        with pytest.raises(kind) as caught:
            run(name)
        assert text in "".join(caught.value.__notes__)
        assert text not in str(caught.value)
        assert capfd.readouterr() == ("", "")

    def test_no_core_file(self) -> None:
        assert run("core_limit") == 0

    def test_a_call_within_a_call(self) -> None:
        assert "SIGABRT" in str(run("nested"))


def is_running(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


def answer_of(code: str) -> str:
    """What ``code`` prints in a process of its own, which has loaded nothing yet."""
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, check=True)
    return done.stdout.strip()


@pytest.mark.skipif(sys.platform != "linux", reason="forks on Linux only")
@pytest.mark.parametrize(("before", "forks"), [
    ("", True),
    ("import numpy", True),
    ("import sys; sys.modules['onnxruntime'] = sys", False),
    ("import sys; sys.modules['torch'] = sys", False),
    ("import threading, time; threading.Thread(target=time.sleep, args=(1,), daemon=True).start()", False),
])
def test_forks_only_where_no_other_thread_can_hold_a_lock(before: str, forks: bool) -> None:
    assert answer_of(f"{before}\nfrom edgekit import isolate\nprint(isolate._fork_is_safe())") == str(forks)


@pytest.mark.usefixtures("start")
def test_buffered_output_of_the_parent_appears_once() -> None:
    code = """
        import sys
        from edgekit import isolate
        sys.stdout.write("once ")
        isolate.call("operator:add", 1, 2)
        sys.stdout.write("done")
    """
    assert answer_of(code) == "once done"


def test_many_calls_from_many_threads() -> None:
    results: list[object] = []
    threads = [threading.Thread(target=lambda number=number: results.append(run("add", number, 1)))
               for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(results) == list(range(1, 9))  # type: ignore[type-var]


def test_a_parent_that_ignores_its_children() -> None:
    code = """
        import signal
        from edgekit import isolate
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)
        print(isolate.call("operator:add", 1, 2))
    """
    assert answer_of(code) == "3"


def test_without_an_interpreter_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(isolate, "_fork_is_safe", lambda: False)
    monkeypatch.setattr(sys, "executable", "")
    with pytest.raises(InternalError, match=r"sys\.executable"):
        run("add", 1, 2)
