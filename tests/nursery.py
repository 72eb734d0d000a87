"""Child processes for tests that start in milliseconds: forks of one process that has read the light packages.

Most tests of the command line and of conversions work in child processes, and reading numpy and onnx takes such a child
longer than its work. A child of the nursery is a process of its own too, with the same working folder, environment and
``sys.path``, but it begins where the imports are done. No engine and no torch is among them: what is forked is safe to
fork by the rule of ``edgekit.isolate`` itself.

Linux only; elsewhere tests use the real thing.
"""

from __future__ import annotations

import gc
import importlib
import os
import pickle
import pkgutil
import select
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from edgekit import isolate

__all__ = ["START", "Child", "Nursery", "serve"]

START = isolate._start
"""How EdgeKit itself starts a child."""

_ROOT = Path(__file__).resolve().parent.parent
_BOOT = "import sys; sys.path[:] = sys.argv[2:]; from tests.nursery import serve; serve(int(sys.argv[1]))"
_PACKAGES = ("edgekit.adaptive", "edgekit.bundle", "edgekit.cli", "edgekit.converters", "edgekit.graph", "edgekit.plan",
             "edgekit.profile", "edgekit.report", "edgekit.runtime")
_MODULES = ("numpy", "onnx", "onnx.checker", "onnx.shape_inference", "onnx.version_converter", "onnx.numpy_helper",
            "onnx.reference", "onnx_ir", "onnx_ir.passes.common", "flatbuffers", "edgekit.pipeline", "edgekit.planning",
            "edgekit.signatures", "edgekit.verify_files")
_MESSAGE_BYTES = 1 << 20


class Child:
    """A process that the nursery started; ``pid`` and ``poll`` as those of subprocess.Popen."""

    def __init__(self, pid: int, reply: socket.socket) -> None:
        self.pid = pid
        self._reply = reply
        self._status: int | None = None

    def poll(self) -> int | None:
        """The exit status, minus the signal's number when one ended it; None while it runs."""
        if self._status is None and select.select([self._reply], [], [], 0)[0]:
            self._status = int(self._reply.recv(64) or b"70")
            self._reply.close()
        return self._status


class Nursery:
    """The process whose forks become children. ``close`` ends it."""

    def __init__(self) -> None:
        self._ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        for end in (self._ours, theirs):
            end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _MESSAGE_BYTES)
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-c", _BOOT, str(theirs.fileno()), str(_ROOT), *sys.path],
                pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL, start_new_session=True)

    def start(self, work: str, arguments: Sequence[str], files: Sequence[int], **place: object) -> Child:
        """A child that does ``work``: "isolate" or "cli".

        ``files``: descriptors that become 0, 1 and 2. ``place``: ``folder`` and ``environment``.
        """
        reply, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        order = pickle.dumps((work, list(arguments), place["folder"], place["environment"], sys.path))
        with theirs:
            socket.send_fds(self._ours, [order], [theirs.fileno(), *files])
        return Child(int(reply.recv(64)), reply)

    def isolated(self, request: object, answer: object, log: object, timeout_s: float) -> Child:
        """What ``isolate._start`` gives: a child that reads ``request`` and writes ``answer`` and ``log``."""
        files = [file.fileno() for file in (request, answer, log)]  # type: ignore[attr-defined]
        return self.start("isolate", [repr(timeout_s)], files, folder=Path.cwd(), environment=dict(os.environ))

    def run(
        self, arguments: Sequence[str], folder: Path, environment: dict[str, str], timeout_s: float
    ) -> subprocess.CompletedProcess[str]:
        """``edgekit ARGUMENTS`` in ``folder``, with what it printed. Raises subprocess.TimeoutExpired."""
        with Path(os.devnull).open("rb") as nothing, tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
            child = self.start("cli", arguments, [nothing.fileno(), out.fileno(), err.fileno()],
                               folder=folder, environment=environment)
            deadline = time.monotonic() + timeout_s
            while (status := child.poll()) is None:
                if time.monotonic() > deadline:
                    os.kill(child.pid, signal.SIGKILL)
                    raise subprocess.TimeoutExpired(list(arguments), timeout_s)
                time.sleep(0.002)
            out.seek(0)
            err.seek(0)
            return subprocess.CompletedProcess(list(arguments), status, out.read().decode(), err.read().decode())

    def close(self) -> None:
        """End it, once its children have ended."""
        self._ours.close()
        self._process.wait(timeout=60)


def serve(number: int) -> None:
    """The nursery itself: one child for each order that comes on the socket with descriptor ``number``."""
    _read_packages()
    with socket.socket(fileno=number) as orders:
        while True:
            order, files, _, _ = socket.recv_fds(orders, _MESSAGE_BYTES, 4)
            if not order:
                break
            if os.fork() == 0:
                orders.close()
                _watch(order, files)
            for file in files:
                os.close(file)
            _reap(os.WNOHANG)
    _reap(0)


def _read_packages() -> None:
    names = list(_MODULES)
    for package in _PACKAGES:
        folder = importlib.import_module(package).__path__
        names += [each.name for each in pkgutil.walk_packages(folder, f"{package}.")]
    for name in names:
        if "torch" not in name and name != "edgekit.adaptive.export":
            importlib.import_module(name)
    loaded = [name for name in isolate._THREADED if name in sys.modules]
    assert not loaded, f"the nursery must not fork with {loaded}"
    gc.collect()
    gc.freeze()


def _reap(options: int) -> None:
    try:
        while os.waitpid(-1, options)[0]:
            pass
    except ChildProcessError:
        return


def _watch(order: bytes, files: list[int]) -> NoReturn:
    """Start the child, tell its number and, when it has ended, its status."""
    reply = socket.socket(fileno=files[0])
    pid = os.fork()
    if pid:
        for file in files[1:]:
            os.close(file)
        try:
            reply.send(str(pid).encode())
            reply.send(str(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])).encode())
        finally:
            os._exit(0)
    reply.close()
    work, arguments, folder, environment, path = pickle.loads(order)
    for target, file in enumerate(files[1:]):
        os.dup2(file, target)
        os.close(file)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    sys.path[:] = path
    if work == "isolate":
        os.setsid()
        isolate._child_main(arguments[0])
    _command_line(arguments)


def _command_line(arguments: list[str]) -> NoReturn:
    """``edgekit ARGUMENTS``; the interpreter is not torn down afterwards, which takes longer than to start it."""
    sys.stdin = open(0, encoding="utf-8", closefd=False)  # noqa: SIM115 - lasts as long as the process
    sys.stdout = open(1, "w", encoding="utf-8", closefd=False)  # noqa: SIM115 - as above
    sys.stderr = open(2, "w", encoding="utf-8", closefd=False)  # noqa: SIM115 - as above
    sys.argv = ["edgekit", *arguments]
    sys.path.insert(0, str(Path.cwd()))  # as python -m does
    status = 70
    try:
        importlib.import_module("edgekit.cli").main(arguments)
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else 1
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
