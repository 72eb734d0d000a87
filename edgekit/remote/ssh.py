"""A board over SSH, by the system's own ``ssh``: keys, jump hosts and the rest come from the user's ssh config."""

from __future__ import annotations

import re
from urllib.parse import urlsplit

from edgekit.errors import BadRecipe, RemoteError
from edgekit.remote.transport import LostConnection, Transport, run_client

__all__ = ["SshTransport"]

_CLIENT = "ssh"
#: what cannot be mistaken for an option or be split by a shell
_HOST = re.compile(r"[A-Za-z0-9_:%][A-Za-z0-9_.:%-]*\Z")
_USER = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.@-]*\Z")
_USELESS = {
    "Host key verification failed": "Log in once by hand and compare the board's key: {login}",
    "REMOTE HOST IDENTIFICATION HAS CHANGED": "If the board was set up anew: ssh-keygen -R {host}, then {login}",
    "Permission denied": "Set up a key that needs no password: ssh-copy-id {host}; then check with: {login}",
    "Too many authentication failures": "Name the key in ~/.ssh/config (IdentityFile, IdentitiesOnly yes).",
    "Bad configuration option": "Mend ~/.ssh/config.",
    "no matching host key type": "Update the board's SSH server, or allow its key type in ~/.ssh/config.",
}


class SshTransport(Transport):
    """``url``: ssh://user@host:port; user and port may be left out, and a host of ~/.ssh/config is one as well."""

    def __init__(self, url: str, connect_timeout_s: float = 10) -> None:
        """Raises BadRecipe for an address that is none."""
        parts = urlsplit(url if "://" in url else f"ssh://{url}")
        try:
            port = parts.port
        except ValueError:
            port = -1
        # Not parts.hostname, which is in lower case: a name in ~/.ssh/config may have capitals.
        host = parts.netloc.rpartition("@")[2].removesuffix(f":{port}").removeprefix("[").removesuffix("]")
        user = parts.username
        if parts.scheme != "ssh" or parts.path.strip("/") or parts.query or parts.password is not None or port == -1:
            raise BadRecipe(f"'{url}' is not the address of a board.",
                            "It looks like ssh://user@host:22; keys and options belong into ~/.ssh/config.")
        if not _HOST.match(host) or (user is not None and not _USER.match(user)):
            raise BadRecipe(f"'{url}' has no usable host or user name.", "It looks like ssh://user@host:22.")
        self._target = host if user is None else f"{user}@{host}"
        self.address = f"ssh://{self._target}" + ("" if port is None else f":{port}")
        self._login = f"ssh {'' if port is None else f'-p {port} '}{self._target}"
        options = {"BatchMode": "yes", "ConnectTimeout": f"{connect_timeout_s:.0f}", "ServerAliveInterval": "5",
                   "ServerAliveCountMax": "3", "ClearAllForwardings": "yes"}
        self._options = [item for name, value in options.items() for item in ("-o", f"{name}={value}")]
        self._options += ["-T"] if port is None else ["-T", "-p", str(port)]

    def put(self, data: bytes, path: str, timeout_s: float) -> None:
        """See Transport. The file is sent through the shell, since small boards have no sftp server."""
        answer = self.shell(f"cat > {path}.part && mv {path}.part {path}", timeout_s, data)
        if answer.code != 0:
            raise RemoteError(f"'{path}' could not be written on {self.address}: {answer.last_words}.",
                              "Is there room in its temporary folder? TMPDIR names another one.")

    def _call(self, script: str, timeout_s: float, data: bytes | None) -> tuple[int, bytes, bytes]:
        return run_client([_CLIENT, *self._options, "--", self._target, script], timeout_s, data)

    def _explain(self, code: int, err: bytes) -> None:
        text = err.decode(errors="replace")
        for sign, remedy in _USELESS.items():
            if sign in text:
                lines = [line.strip() for line in text.splitlines() if line.strip(" @\r")]
                told = next((line for line in lines if sign in line), sign)
                raise RemoteError(f"{self.address} does not let us in: {told.rstrip('.!')}.",
                                  remedy.format(host=self._target, login=self._login))
        if code == 127:
            raise LostConnection("the board's login shell found no command")
