"""Boards for tests: a real sshd on the loopback interface, and an ``adb`` that works on this machine."""

from __future__ import annotations

import contextlib
import getpass
import os
import shutil
import signal
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

__all__ = ["FakeAdb", "Sshd", "wait_for"]

_FAKE_ADB = '''#!{python}
"""adb [-s SERIAL] shell SCRIPT | push FILE PATH, on this machine; "unplugged" in its folder breaks the connection."""
import os, pathlib, shutil, subprocess, sys, time

home = pathlib.Path(__file__).parent
with (home / "calls").open("a") as calls:
    calls.write(" ".join(sys.argv[1:])[:200].replace("\\n", " ") + "\\n")
arguments = sys.argv[1:]
serial = "emulator-5554"
if arguments[0] == "-s":
    serial = arguments[1]
    arguments = arguments[2:]
state = (home / "state").read_text() if (home / "state").exists() else ""
if state:
    sys.exit("error: device " + state if state == "unauthorized." else "error: " + state)
if serial != "emulator-5554" or (home / "unplugged").exists():
    sys.exit("error: device '" + serial + "' not found")
if arguments[0] == "push":
    shutil.copyfile(arguments[1], arguments[2])
    print("1 file pushed")
elif arguments[0] == "shell":
    environment = dict(os.environ, TMPDIR=str(home / "tmp"))
    if (home / "greeting").exists():
        print((home / "greeting").read_text(), end="", flush=True)
    child = subprocess.Popen(["sh", "-c", arguments[1]], env=environment, start_new_session=True)
    while child.poll() is None:
        time.sleep(0.02)
        if (home / "unplugged").exists():
            child.kill()
            sys.exit(1)
    sys.exit(child.returncode)
else:
    sys.exit("adb: unknown command " + arguments[0])
'''


def wait_for(pattern: str, folder: Path, seconds: float = 60) -> Path:
    """The first file in ``folder`` that fits ``pattern``, waited for."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        for found in folder.glob(pattern):
            return found
        time.sleep(0.02)
    raise AssertionError(f"no {pattern} in {folder} within {seconds} s")


class FakeAdb:
    """An ``adb`` first on the path, whose device's temporary folder is ``tmp``."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder, self.tmp = folder, folder / "tmp"
        self.tmp.mkdir(parents=True)
        program = folder / "adb"
        program.write_text(_FAKE_ADB.format(python=sys.executable))
        program.chmod(program.stat().st_mode | stat.S_IXUSR)
        monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")

    def unplug(self) -> None:
        (self.folder / "unplugged").touch()

    def plug_in(self) -> None:
        (self.folder / "unplugged").unlink()

    def say(self, state: str) -> None:
        (self.folder / "state").write_text(state)

    @property
    def calls(self) -> list[str]:
        return (self.folder / "calls").read_text().splitlines()


class Sshd:
    """An sshd of the current user; ``ssh`` on the path uses its keys. The board's temporary folder is ``tmp``."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self._program = shutil.which("sshd", path=f"{os.environ['PATH']}:/usr/sbin:/sbin") or ""
        ssh, keygen = shutil.which("ssh"), shutil.which("ssh-keygen")
        if not (self._program and ssh and keygen):
            pytest.skip("needs OpenSSH's server and client (Debian: openssh-server, openssh-client)")
        if os.getuid() == 0:  # sshd wants its empty folder, which the service makes when it is started
            Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
        self.folder, self.tmp = folder, folder / "tmp"
        self.tmp.mkdir(parents=True)
        for name in ("host", "user", "stranger"):
            subprocess.run([keygen, "-q", "-t", "ed25519", "-N", "", "-f", str(folder / name)], check=True)
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = int(probe.getsockname()[1])
        self._configure()
        client = folder / "bin"
        client.mkdir()
        (client / "ssh").write_text(f'#!/bin/sh\nexec {ssh} -F {folder}/ssh_config "$@"\n')
        (client / "ssh").chmod(0o755)
        monkeypatch.setenv("PATH", f"{client}{os.pathsep}{os.environ['PATH']}")
        self._server: subprocess.Popen[bytes] | None = None
        self.start()

    @property
    def url(self) -> str:
        return f"ssh://{getpass.getuser()}@127.0.0.1:{self.port}"

    def _configure(self) -> None:
        folder = self.folder
        (folder / "authorized").write_text((folder / "user.pub").read_text())
        (folder / "authorized").chmod(0o600)
        (folder / "known").write_text(f"[127.0.0.1]:{self.port} {(folder / 'host.pub').read_text()}")
        (folder / "ssh_config").write_text(
            f"IdentityFile {folder}/user\nIdentitiesOnly yes\nUserKnownHostsFile {folder}/known\n"
            "GlobalKnownHostsFile /dev/null\n")
        lines = [
            f"Port {self.port}", "ListenAddress 127.0.0.1", f"HostKey {folder}/host",
            f"AuthorizedKeysFile {folder}/authorized", f"PidFile {folder}/sshd.pid", "StrictModes no", "UsePAM no",
            "PasswordAuthentication no", "KbdInteractiveAuthentication no", "PermitRootLogin prohibit-password",
            f"SetEnv TMPDIR={self.tmp}", *(["PerSourcePenalties no"] if self._has_penalties() else []),
        ]
        (folder / "sshd_config").write_text("\n".join(lines) + "\n")

    def _has_penalties(self) -> bool:
        """OpenSSH 9.8 and later lock out an address whose connections fail."""
        test = self.folder / "penalties_config"
        test.write_text(f"HostKey {self.folder}/host\nPerSourcePenalties no\n")
        done = subprocess.run([self._program, "-t", "-f", str(test)], capture_output=True, check=False)
        return done.returncode == 0

    def start(self) -> None:
        log = (self.folder / "sshd.log").open("ab")
        self._server = subprocess.Popen([self._program, "-D", "-e", "-f", str(self.folder / "sshd_config")],
                                        stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        log.close()
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1):
                return
            if self._server.poll() is not None:
                pytest.skip(f"sshd does not start here: {(self.folder / 'sshd.log').read_text()[-300:]}")
            time.sleep(0.05)
        raise AssertionError("sshd does not listen")

    def hang_up(self) -> int:
        """Kill the processes that serve connections; how many there were."""
        assert self._server is not None
        children = list(_children(self._server.pid))
        for pid in children:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        return len(children)

    def stop(self) -> None:
        """No connection any more, and no new one."""
        if self._server is not None:
            self.hang_up()
            self._server.kill()
            self._server.wait()
            self._server = None


def _children(pid: int) -> Iterator[int]:
    """Every sshd below ``pid``."""
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError, IndexError):
            name, _, rest = (entry / "stat").read_text().partition("(")[2].rpartition(")")
            if name.startswith("sshd") and int(rest.split()[1]) == pid:
                yield int(entry.name)
                yield from _children(int(entry.name))
