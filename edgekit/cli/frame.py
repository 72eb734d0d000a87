"""What every verb shares: ``--json`` and ``--debug``, results on stdout, messages and progress on stderr.

A verb is a function that returns a frozen result and a function that draws it::

    @verb("doctor", draw=_draw)
    def doctor(frame: Frame) -> Doctor: ...

With ``--json`` the result is the one object on stdout; docs/cli.md has the shape of each. Whatever libraries print
while the verb works goes to stderr, so that it cannot get into the object.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import importlib
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import click
import msgspec

from edgekit import isolate
from edgekit.cli.draw import Drawing, moving, render
from edgekit.errors import EdgeKitError, WriteFailed

__all__ = ["ErrorReport", "Failure", "Frame", "Partial", "failure_object", "print_line", "verb"]

R = TypeVar("R", bound=msgspec.Struct)

_TIMEOUT_S = 3600.0


class Failure(msgspec.Struct, frozen=True):
    """The value of ``error`` in the object that a failing call prints with ``--json``."""

    type: str
    message: str
    remedy: str
    exit_code: int


class ErrorReport(msgspec.Struct, frozen=True):
    """The object that a failing call prints with ``--json``."""

    error: Failure


class Partial(Exception):
    """A verb failed and has a result all the same, such as the comparison that did not pass; it has been printed."""

    def __init__(self, error: EdgeKitError, result: msgspec.Struct) -> None:
        super().__init__(error.message)
        self.error = error
        self.result = result


class Frame:
    """What a verb tells a person while it works (on stderr), and where the risky part of its work runs."""

    def __init__(self, debug: bool = False, quiet: bool = False) -> None:
        """``quiet``: no progress, not even on a terminal."""
        self._debug = debug
        self._quiet = quiet

    @property
    def shows_progress(self) -> bool:
        """Whether ``working`` draws anything: on a terminal, unless the caller wants JSON."""
        return not self._quiet and sys.stderr.isatty()

    def say(self, message: str) -> None:
        """Print a line of information."""
        click.echo(message, err=True)

    @contextlib.contextmanager
    def working(self, what: str) -> Iterator[Callable[[str], None]]:
        """Show ``what`` and the time it takes, on a terminal only; the yielded function shows another text."""
        if not self.shows_progress:
            yield lambda _: None
            return
        with moving(what, sys.stderr) as show:
            yield show

    def guarded(self, target: str, *arguments: object, subject: str) -> object:
        """Call ``target`` ("module:function") in a child process, so that a hostile model cannot take this one down.

        With --debug it runs here, so that the traceback is whole. Raises BadModel when the child dies.
        """
        if self._debug:
            module, _, name = target.partition(":")
            return getattr(importlib.import_module(module), name)(*arguments)
        return isolate.call(target, *arguments, timeout_s=_TIMEOUT_S, subject=subject)


def verb(name: str, draw: Callable[[R], Drawing]) -> Callable[[Callable[..., R]], click.Command]:
    """Make a command of a function ``(frame, **options) -> result``; ``draw`` shows the result to a person."""

    def decorate(function: Callable[..., R]) -> click.Command:
        @functools.wraps(function)
        def run(*, json: bool, debug: bool, **options: Any) -> None:
            try:
                with _stdout_is_stderr():
                    result = function(Frame(debug, quiet=json), **options)
            except Partial as partial:
                _print(partial.result, json, draw, _failure(partial.error))
                raise
            _print(result, json, draw)

        command = click.command(name)(run)
        command.params += [
            click.Option(["--json"], is_flag=True, help="Print one JSON object on stdout."),
            click.Option(["--debug"], is_flag=True, help="Show the traceback of an error."),
        ]
        return command

    return decorate


def failure_object(error: EdgeKitError) -> str:
    """The JSON text that stands for ``error`` on stdout."""
    return _encode(ErrorReport(error=_failure(error)))


def print_line(text: str) -> None:
    """``text`` and a newline on stdout. Raises WriteFailed when it cannot be written, but not for a closed pipe."""
    try:
        click.echo(text)
        sys.stdout.flush()
    except OSError as error:
        if error.errno == errno.EPIPE:
            raise
        raise WriteFailed(f"Could not write to the standard output: {error.strerror or error}.") from error


def _failure(error: EdgeKitError) -> Failure:
    return Failure(type(error).__name__, error.message, error.remedy, error.exit_code)


def _encode(value: object) -> str:
    return msgspec.json.encode(value).decode()


def _print(result: Any, json: bool, draw: Callable[[Any], Drawing], failure: Failure | None = None) -> None:
    if json:
        fields = msgspec.to_builtins(result)
        print_line(_encode({**fields, "error": failure} if failure else fields))
        return
    # Into a file or pipe a table keeps its natural width; only a terminal makes it narrower.
    terminal = sys.stdout.isatty()
    width = shutil.get_terminal_size().columns if terminal else None
    print_line(render(draw(result), width, colour=terminal and "NO_COLOR" not in os.environ).rstrip("\n"))


@contextlib.contextmanager
def _stdout_is_stderr() -> Iterator[None]:
    """Send what Python or native code prints on stdout to stderr."""
    try:
        kept = os.dup(1)
    except OSError:  # stdout was closed by the caller: there is nothing to protect
        with contextlib.redirect_stdout(sys.stderr):
            yield
        return
    sys.stdout.flush()
    os.dup2(2, 1)
    try:
        with contextlib.redirect_stdout(sys.stderr):
            yield
    finally:
        os.dup2(kept, 1)
        os.close(kept)
