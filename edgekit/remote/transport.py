"""How a board is reached: run a shell script there, put a file there. The lost connection is an error of its own."""

from __future__ import annotations

import subprocess
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import NamedTuple

from edgekit.errors import RemoteError

__all__ = ["Answer", "LostConnection", "Transport", "run_client"]

_BEGIN, _MARK = "edgekit-begins", "edgekit-exit-code:"


class Answer(NamedTuple):
    """What a script on the board did: its exit code and what it printed."""

    code: int
    out: bytes
    err: bytes

    @property
    def last_words(self) -> str:
        """The last line on its standard error, else on its standard output."""
        lines = (self.err.strip() or self.out.strip()).decode(errors="replace").splitlines()
        return lines[-1][:300] if lines else "it said nothing"


class LostConnection(Exception):
    """The connection could not be made, or broke. Trying again may help."""


class Transport(ABC):
    """One board. ``address`` names it in messages."""

    address: str

    def shell(self, script: str, timeout_s: float, data: bytes | None = None) -> Answer:
        """Run ``script`` with the board's sh; ``data`` is its standard input.

        The script has to stay free of single quotes. Raises LostConnection, and RemoteError where trying again is
        useless. An answer is complete: it ends with a mark that a broken connection would have cut off.
        """
        # A client's own exit code cannot be told from the script's. The login shell may be any; sh is everywhere.
        whole = f"sh -c 'echo; echo {_BEGIN}; ({script}); echo {_MARK}$?'"
        code, out, err = self._call(whole, timeout_s, data)
        text, mark, number = out.replace(b"\r\n", b"\n").rpartition(_MARK.encode())
        if not mark or not number.strip().isdigit():
            self._explain(code, err)
            raise LostConnection(_last(err) or f"the client ended with exit code {code}")
        # What stands before is the greeting of a login shell.
        return Answer(int(number), text.partition(f"{_BEGIN}\n".encode())[2], err)

    @abstractmethod
    def put(self, data: bytes, path: str, timeout_s: float) -> None:
        """Write ``data`` to ``path`` on the board. Raises LostConnection, RemoteError."""

    @abstractmethod
    def _call(self, script: str, timeout_s: float, data: bytes | None) -> tuple[int, bytes, bytes]:
        """Exit code, standard output and standard error of the client that runs ``script``."""

    @abstractmethod
    def _explain(self, code: int, err: bytes) -> None:
        """Raise RemoteError for a failure of the client that trying again would not mend."""


def run_client(command: Sequence[str], timeout_s: float, data: bytes | None = None) -> tuple[int, bytes, bytes]:
    """Exit code and output of ``command``. Raises LostConnection when time runs out, RemoteError when it is missing."""
    try:
        # An empty input stands for none: nothing here may wait for the terminal.
        done = subprocess.run(command, capture_output=True, timeout=timeout_s, check=False, input=data or b"")
    except FileNotFoundError:
        raise RemoteError(f"There is no program '{command[0]}' on this machine.",
                          "Install it (OpenSSH's client, or Android's platform-tools) so that it is on the path.",
                          ) from None
    except subprocess.TimeoutExpired:
        raise LostConnection(f"no answer within {timeout_s:.0f} s") from None
    return done.returncode, done.stdout, done.stderr


def _last(text: bytes) -> str:
    lines = text.decode(errors="replace").strip().splitlines()
    return lines[-1][:300] if lines else ""
