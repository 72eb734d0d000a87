"""The command ``edgekit``: finds the verb, and turns whatever goes wrong into one line and an exit code.

Exit codes: 0 success, 1 an EdgeKitError, 2 wrong usage, 70 a bug of EdgeKit, 130 interrupted.
"""

from __future__ import annotations

import contextlib
import importlib
import sys
import traceback
from collections.abc import Sequence
from typing import NoReturn

import click

from edgekit.cli.frame import Partial, failure_object, print_line
from edgekit.errors import EdgeKitError, InternalError, UserError

__all__ = ["VERBS", "main"]

#: In the order of the work; ``edgekit.cli.<verb>`` holds the command of the same name.
VERBS = ("compress", "export", "convert", "quantize", "build", "plan", "verify", "inspect", "run", "bench", "devices",
         "profile", "zoo", "train", "demo", "keygen", "sign", "delta", "doctor")


class UsageError(UserError):
    """A verb, option or argument that does not exist or is missing."""

    exit_code = 2


class Interrupted(UserError):
    """The person pressed Ctrl-C."""

    exit_code = 130


class _Verbs(click.Group):
    """Loads the file of a verb only when it is asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        return list(VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002 - as above
        if cmd_name not in VERBS:
            return None
        command = getattr(importlib.import_module(f"edgekit.cli.{cmd_name}"), cmd_name)
        assert isinstance(command, click.Command)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and args[0] not in VERBS and not args[0].startswith("-"):
            raise click.UsageError(f"Unknown verb '{args[0]}'. Known: {', '.join(VERBS)}.", ctx)
        return super().resolve_command(ctx, args)


def _print_version(ctx: click.Context, _: click.Parameter, value: bool) -> None:
    if value:
        from edgekit import __version__

        print_line(f"edgekit {__version__}")
        ctx.exit()


@click.group("edgekit", cls=_Verbs, invoke_without_command=True, context_settings={
    "help_option_names": ["-h", "--help"], "max_content_width": 100,
})
@click.option("--version", is_flag=True, is_eager=True, expose_value=False, callback=_print_version,
              help="Show the version and exit.")
@click.pass_context
def _root(ctx: click.Context) -> None:
    """Take a trained network to phones: export, convert, bundle, check, run."""
    if ctx.invoked_subcommand is None:
        raise click.UsageError(f"No verb was given. Known: {', '.join(VERBS)}.", ctx)


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the command line with ``arguments`` (default: those of the process) and exit with its code."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    try:
        code = _root.main(arguments, prog_name="edgekit", standalone_mode=False)
    except (Exception, KeyboardInterrupt) as error:  # noqa: BLE001 - the outermost frame: all becomes a line and a code
        sys.exit(_report(error, arguments))
    sys.exit(code if isinstance(code, int) else 0)


def _report(error: BaseException, arguments: Sequence[str]) -> int:
    known = _known(error)
    if "--debug" in arguments:
        click.echo("".join(traceback.format_exception(error)), err=True, nl=False)
    click.echo(f"edgekit: error: {known}", err=True)
    if "--json" in arguments and not isinstance(error, Partial):
        with contextlib.suppress(OSError, EdgeKitError):  # the reason is on stderr already
            print_line(failure_object(known))
    return known.exit_code


def _known(error: BaseException) -> EdgeKitError:
    if isinstance(error, EdgeKitError):
        return error
    if isinstance(error, Partial):
        return error.error
    if isinstance(error, click.Abort | KeyboardInterrupt):
        return Interrupted("Interrupted.")
    if isinstance(error, MemoryError):
        return UserError("Memory ran out.", "Use a machine with more memory, or a smaller model.")
    if isinstance(error, click.UsageError):
        path = error.ctx.command_path if error.ctx else "edgekit"
        return UsageError(error.format_message(), f"Try: {path} --help")
    if isinstance(error, click.ClickException):
        return UsageError(error.format_message())
    return InternalError(f"A bug of EdgeKit: {type(error).__name__}: {error}.",
                         "Please report it with what the same command prints with --debug.")
