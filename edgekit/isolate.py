"""Run a function in a child process, so that a parser that crashes takes only the child down.

This guards against crashes and hangs, not against an attacker who runs code in the child: the child has the same rights
as the parent, and its answer is unpickled.

How the child starts. Forking copies only the calling thread: a lock that any other thread held stays locked for ever
in the child. Engines and torch keep pools of native threads that Python cannot see, so ``call`` forks only on Linux,
from a process with a single Python thread in which none of ``_THREADED`` has been imported, and otherwise starts a
fresh interpreter. (NumPy's OpenBLAS also has threads, but joins them before a fork through pthread_atfork. macOS's
frameworks do not survive a fork.) A fork costs some 5 ms, a fresh interpreter some 50 ms.
"""

from __future__ import annotations

import contextlib
import faulthandler
import gc
import importlib
import os
import pickle
import signal
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, NoReturn, Protocol

from edgekit.errors import BadModel, EdgeKitError, InternalError

__all__ = ["call"]

_THREADED = ("ai_edge_litert", "cv2", "grpc", "jax", "onnxruntime", "tensorflow", "tflite_runtime", "torch")
_LOG_BYTES = 65536
_NOTE_CHARACTERS = 4000
_LONGEST_PAUSE_S = 0.01
_BOOT = "import sys; sys.path[:] = sys.argv[2:]; from edgekit.isolate import _child_main; _child_main(sys.argv[1])"

_inside = False  # True in a child: its own children stay in its process group and end with it


class _Child(Protocol):
    pid: int

    def poll(self) -> int | None:
        """The exit status once the child has ended (minus the signal's number when one killed it), else None."""


def call(target: str, *args: object, timeout_s: float = 600, subject: str = "") -> object:
    """The result of ``target`` ("package.module:function") applied to ``args`` in a child process.

    Arguments and result are pickled. What the child prints (engine logs) is kept apart: its last lines become a note of
    the error, if there is one, and are dropped otherwise. ``subject`` names the thing at hand in error messages, for
    example "The model 'm.tflite'".

    Raises the EdgeKitError that the function raised; BadModel when the child dies from a signal (SIGSEGV, SIGABRT,
    SIGFPE, SIGKILL when memory runs out), ends without an answer, runs out of memory or takes longer than ``timeout_s``
    seconds; InternalError, with the traceback, for any other exception and for a result that cannot be pickled.
    """
    subject = subject or f"The work of {target}"
    with _scratch() as request, _scratch() as answer, _scratch() as log:
        try:
            pickle.dump((target, args), request, protocol=5)
        except (pickle.PicklingError, TypeError, AttributeError) as error:
            raise InternalError(f"The arguments of {target} cannot be sent to a child process: {error}.") from error
        request.seek(0)
        status = _wait(lambda: _start(request, answer, log, timeout_s), timeout_s)
        note = _tail(log)
        if status is None:
            raise _noted(BadModel(f"{subject} did not finish within {timeout_s:g} s and was stopped.",
                                  "The file may be damaged, or far larger than the time allows."), note)
        if status != 0:
            raise _noted(_death(subject, status), note)
        answer.seek(0)
        return _unpack(subject, answer, note)


def _unpack(subject: str, answer: IO[bytes], note: str) -> object:
    try:
        kind, value = pickle.load(answer)  # noqa: S301 - written by our own child
    except (EOFError, pickle.UnpicklingError):
        # The child writes its answer last, so it left through an exit() inside native code.
        raise _noted(BadModel(f"{subject} ended its process without an answer.",
                              "The file is damaged or makes its parser exit."), note) from None
    except Exception as error:
        raise _noted(InternalError(f"{subject} gave a result that cannot be read back: {error!r}.",
                                   "Please report it."), note) from error
    if kind == "result":
        return value
    if isinstance(value, EdgeKitError):
        raise _noted(value, note)
    raise _noted(InternalError(f"{subject} failed in its process:\n{value}", "Please report it."), note)


def _death(subject: str, status: int) -> BadModel:
    if status > 0:
        return BadModel(f"{subject} ended its process with exit code {status} and no answer.",
                        "The file is damaged or makes its parser exit.")
    try:
        name = signal.Signals(-status).name
    except ValueError:
        name = f"signal {-status}"
    if name == "SIGKILL":
        return BadModel(f"{subject} was killed (SIGKILL), most likely because memory ran out.",
                        "The file may be damaged; else use a machine with more memory.")
    return BadModel(f"{subject} crashed the program that parses it ({name}).",
                    "The file is damaged or hits a bug of that program; obtain it anew or convert it again.")


def _noted(error: EdgeKitError, note: str) -> EdgeKitError:
    if note:
        error.add_note(f"The last lines that the child process printed:\n{note}")
    return error


def _tail(log: IO[bytes]) -> str:
    """The last words before a crash and the first of the traceback that faulthandler wrote below them."""
    size = log.seek(0, os.SEEK_END)
    log.seek(max(0, size - _LOG_BYTES))
    words, mark, trace = log.read().decode(errors="replace").partition("Fatal Python error: ")
    return (words.strip()[-_NOTE_CHARACTERS:] + "\n" + (mark + trace)[:_NOTE_CHARACTERS]).strip()


@contextlib.contextmanager
def _scratch() -> Iterator[IO[bytes]]:
    """An unnamed file. Unlike a pipe it cannot fill up, and no grandchild that keeps it open can make us wait."""
    if hasattr(os, "memfd_create"):
        with os.fdopen(os.memfd_create("edgekit"), "w+b") as file:
            yield file
    else:
        with tempfile.TemporaryFile() as file:
            yield file


def _wait(start: Callable[[], _Child], timeout_s: float) -> int | None:
    """The exit status of the child that ``start`` makes, or None after a time-out.

    The child is gone and reaped in every case, also when interrupted.
    """
    deadline = time.monotonic() + timeout_s
    pause = 0.0005
    child = None
    try:
        with _uninterrupted():
            child = start()
        while (status := child.poll()) is None:
            if time.monotonic() >= deadline:
                return None
            time.sleep(pause)
            pause = min(pause * 1.5, _LONGEST_PAUSE_S)
        return status
    finally:
        if child is not None and child.poll() is None:
            _kill(child.pid)
            while child.poll() is None:
                time.sleep(0.001)


@contextlib.contextmanager
def _uninterrupted() -> Iterator[None]:
    """Ctrl-C waits until the end of this, so that no child is made of which nobody knows."""
    if os.name != "posix":
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _kill(pid: int) -> None:
    """``pid`` is our child and not reaped yet, so its number cannot belong to anybody else."""
    if os.name == "posix" and not _inside:
        # A child may be killed before it has opened its own group: then there is no such group, and no grandchild.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(pid, signal.SIGKILL)
    os.kill(pid, signal.SIGKILL if os.name == "posix" else signal.SIGTERM)


def _start(request: IO[bytes], answer: IO[bytes], log: IO[bytes], timeout_s: float) -> _Child:
    if _fork_is_safe():
        return _Fork(request, answer, log, timeout_s)
    if not sys.executable or getattr(sys, "frozen", False):
        raise InternalError("There is no Python interpreter to start a child process with (sys.executable).",
                            "Run EdgeKit from an installed Python, or before an engine or a thread is started.")
    arguments = [sys.executable, "-P", "-c", _BOOT, repr(timeout_s), *sys.path]
    # Its own session, so that a time-out can end the grandchildren too.
    return subprocess.Popen(arguments, stdin=request, stdout=answer, stderr=log, start_new_session=not _inside)


def _fork_is_safe() -> bool:
    if sys.platform != "linux" or threading.active_count() != 1:
        return False
    return not any(name in sys.modules for name in _THREADED)


class _Fork:
    """A child made by ``os.fork``; it never returns from the constructor."""

    def __init__(self, request: IO[bytes], answer: IO[bytes], log: IO[bytes], timeout_s: float) -> None:
        self._status: int | None = None
        self.pid = os.fork()
        if self.pid == 0:
            try:
                for number, file in enumerate((request, answer, log)):
                    os.dup2(file.fileno(), number)
                if not _inside:
                    os.setsid()
                # Garbage of the parent must not be finalised here (it may own temporary folders).
                gc.freeze()
                _child_main(repr(timeout_s))
            finally:
                os._exit(70)  # only reached when _child_main itself failed

    def poll(self) -> int | None:
        if self._status is None:
            try:
                pid, status = os.waitpid(self.pid, os.WNOHANG)
            except ChildProcessError:
                self._status = 0  # SIGCHLD is ignored in this process: the answer file tells how it went
            else:
                self._status = os.waitstatus_to_exitcode(status) if pid else None
        return self._status


def _child_main(timeout_s: str) -> NoReturn:
    """The child: request on descriptor 0, answer to a private copy of 1; everything printed goes to 2."""
    global _inside  # noqa: PLW0603 - set once, in a process of its own
    _inside = True
    answer = os.dup(1)
    os.dup2(2, 1)
    _prepare(float(timeout_s))
    with os.fdopen(os.dup(0), "rb") as request, os.fdopen(answer, "wb") as out:
        _reply(request, out)
    os._exit(0)  # no exit handlers: some engines crash while they are torn down


def _prepare(timeout_s: float) -> None:
    """No core files, a Python traceback in the log for a crash, and an end even if the parent is gone."""
    sys.stdout = sys.stderr = os.fdopen(os.dup(2), "w", buffering=1, errors="replace")
    faulthandler.enable(sys.stderr)
    if os.name == "posix":
        import resource

        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})  # blocked while this process was made
        resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.setitimer(signal.ITIMER_REAL, timeout_s + 5)
    # When memory runs out, the kernel shall end this process and not the parent or a bystander.
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000", encoding="ascii")


def _reply(request: IO[bytes], out: IO[bytes]) -> None:
    try:
        target, args = pickle.load(request)  # noqa: S301 - written by our own parent
        pickle.dump(("result", _resolve(target)(*args)), out, protocol=5)
    except BaseException as error:  # noqa: BLE001 - whatever it is, it becomes the answer
        out.seek(0)
        out.truncate()
        pickle.dump(("error", _portable(error)), out, protocol=5)


def _portable(error: BaseException) -> EdgeKitError | str:
    """``error`` itself when it is one of ours and survives pickling, else the text of its traceback."""
    if isinstance(error, MemoryError):
        return BadModel("The model asks for more memory than there is.",
                        "It may be damaged; else use a machine with more memory.")
    text = "".join(traceback.format_exception(error))
    if not isinstance(error, EdgeKitError):
        return text
    try:
        copy = pickle.loads(pickle.dumps(error))  # noqa: S301 - our own error
    except Exception:  # noqa: BLE001 - the text below holds it
        return text + traceback.format_exc()
    return copy if isinstance(copy, EdgeKitError) else text


def _resolve(target: str) -> Callable[..., object]:
    module, _, name = target.partition(":")
    function: Callable[..., object] = getattr(importlib.import_module(module), name)
    return function
