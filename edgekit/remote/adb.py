"""A device over Android's debug bridge, by the ``adb`` of the platform tools."""

from __future__ import annotations

import re
import tempfile
from pathlib import Path

from edgekit.errors import BadRecipe, RemoteError
from edgekit.remote.transport import LostConnection, Transport, run_client

__all__ = ["AdbTransport"]

_CLIENT = "adb"
_SERIAL = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.:-]*\Z")
_USELESS = {
    "unauthorized": "Unlock the device and allow debugging from this computer.",
    "more than one device": "Say which: --adb SERIAL. They are listed by: adb devices",
    "no permissions": "Give yourself access to the USB device (a udev rule), then: adb kill-server",
}


class AdbTransport(Transport):
    """``serial``: as ``adb devices`` lists it; None for the only device."""

    def __init__(self, serial: str | None = None) -> None:
        """Raises BadRecipe for a serial number that cannot be one."""
        if serial is not None and not _SERIAL.match(serial):
            raise BadRecipe(f"'{serial}' is not a serial number.", "They are listed by: adb devices")
        self._command = [_CLIENT] if serial is None else [_CLIENT, "-s", serial]
        self.address = "adb:" + (serial or "the only device")

    def put(self, data: bytes, path: str, timeout_s: float) -> None:
        """See Transport."""
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "file"
            file.write_bytes(data)
            code, out, err = run_client([*self._command, "push", str(file), path], timeout_s)
        if code != 0:
            self._explain(code, err)
            words = (err or out).decode(errors="replace").strip()[-300:]
            if any(sign in words for sign in ("No space", "Permission denied", "Read-only")):
                raise RemoteError(f"'{path}' could not be written on {self.address}: {words}.",
                                  "Is there room in /data/local/tmp?")
            raise LostConnection(words)

    def _call(self, script: str, timeout_s: float, data: bytes | None) -> tuple[int, bytes, bytes]:
        return run_client([*self._command, "shell", script], timeout_s, data)

    def _explain(self, code: int, err: bytes) -> None:  # noqa: ARG002 - adb's exit code is 1 for everything
        text = err.decode(errors="replace")
        for sign, remedy in _USELESS.items():
            if sign in text:
                raise RemoteError(f"{self.address} does not let us in: {text.strip()[-300:]}.", remedy)
