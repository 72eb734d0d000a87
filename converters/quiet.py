"""Catching what a talkative library prints, so that it appears with an error and nowhere else."""

from __future__ import annotations

import io
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from typing import TextIO

__all__ = ["Captured", "captured_output"]

_log = logging.getLogger(__name__)
#: libraries whose loggers are caught; torch gives each of its loggers a handler of its own on the real stderr
_TALKATIVE = ("torch", "onnxscript", "onnx_ir", "onnx")


class Captured:
    """The text caught so far."""

    def __init__(self) -> None:
        self.stream = io.StringIO()

    @property
    def text(self) -> str:
        """Prints, log records and warnings in the order in which they came."""
        return self.stream.getvalue().strip()

    def show_warning(
        self,
        message: Warning | str,
        category: type[Warning],
        filename: str,
        lineno: int,
        file: TextIO | None = None,
        line: str | None = None,
    ) -> None:
        """Stand in for ``warnings.showwarning``, which others (pytest, say) replace by one that keeps them."""
        del file
        self.stream.write(warnings.formatwarning(message, category, filename, lineno, line))

    def attach(self, error: BaseException) -> None:
        """Add the text to ``error`` as a note, which a traceback shows and the one-line message does not."""
        if self.text:
            error.add_note(f"What the libraries said before:\n{self.text}")


@contextmanager
def captured_output() -> Iterator[Captured]:
    """Catch prints, warnings and the log records of torch and onnx inside the block; they go to our debug log."""
    captured = Captured()
    caught = _loggers()
    before = [(logger, logger.handlers[:], logger.propagate) for logger in caught]
    handler = logging.StreamHandler(captured.stream)
    for logger in caught:
        logger.handlers, logger.propagate = [handler], False
    try:
        with redirect_stdout(captured.stream), redirect_stderr(captured.stream), warnings.catch_warnings():
            warnings.simplefilter("default")
            warnings.showwarning = captured.show_warning
            yield captured
    finally:
        for logger, handlers, propagate in before:
            logger.handlers, logger.propagate = handlers, propagate
        if captured.text:
            _log.debug("caught: %s", captured.text)


def _loggers() -> list[logging.Logger]:
    """The top loggers of the talkative libraries, and those below that have handlers of their own."""
    known = (logging.getLogger(name) for name in sorted(logging.root.manager.loggerDict))
    below = [each for each in known if each.handlers and each.name.split(".")[0] in _TALKATIVE]
    return list({id(each): each for each in [*map(logging.getLogger, _TALKATIVE), *below]}.values())
