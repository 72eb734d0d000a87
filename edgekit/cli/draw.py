"""Text, tables and a line that moves, for a terminal, a pipe or a file.

Names in models come from strangers: what is no printable character, such as the start of a terminal's commands, is
shown as U+FFFD.
"""

from __future__ import annotations

import contextlib
import itertools
import shutil
import textwrap
import threading
import time
import unicodedata
from collections.abc import Callable, Iterator
from typing import NamedTuple, TextIO

import click

__all__ = ["Drawing", "Group", "Table", "Text", "moving", "render"]

_GAP = 2
_NARROWEST = 8


class Text(NamedTuple):
    """Lines of text; ``style`` is a colour of click, "bold", or both: "bold red". Only terminals show it."""

    text: str = ""
    style: str = ""


class Table:
    """A table without lines; a column whose name starts with ">" holds numbers and is aligned to the right."""

    def __init__(self, *columns: str) -> None:
        """``columns``: their names."""
        self.names = tuple(name.removeprefix(">") for name in columns)
        self.right = tuple(name.startswith(">") for name in columns)
        self.rows: list[tuple[Text, ...]] = []

    def add_row(self, *cells: str | Text) -> None:
        """One row; cells that are not given are empty."""
        texts = [cell if isinstance(cell, Text) else Text(cell) for cell in cells]
        self.rows.append((*texts, *[Text()] * (len(self.names) - len(texts))))


class Group(tuple["Drawing", ...]):
    """Things below one another."""

    __slots__ = ()

    def __new__(cls, *parts: Drawing) -> Group:
        """``parts``: from top to bottom."""
        return super().__new__(cls, parts)


Drawing = str | Text | Table | Group


def render(drawing: Drawing, width: int | None = None, colour: bool = False) -> str:
    """``drawing`` as text without a newline at the end.

    ``width``: characters to which tables are narrowed, their cells wrapped; None leaves them as wide as they are.
    """
    if isinstance(drawing, Group):
        return "\n".join(render(part, width, colour) for part in drawing)
    if isinstance(drawing, Table):
        return "\n".join(_lines(drawing, width, colour))
    text = drawing if isinstance(drawing, Text) else Text(drawing)
    return _styled(_printable(text.text), text.style, colour)


def _lines(table: Table, width: int | None, colour: bool) -> Iterator[str]:
    rows = [tuple(Text(name, "bold") for name in table.names), *table.rows]
    cells = [[_printable(cell.text) for cell in row] for row in rows]
    widths = [max(_width(line) for row in cells for line in row[at].split("\n")) for at in range(len(table.names))]
    while width is not None and sum(widths) + _GAP * (len(widths) - 1) > width and max(widths) > _NARROWEST:
        widths[widths.index(max(widths))] -= 1
    for row, texts in zip(rows, cells, strict=True):
        wrapped = [_wrapped(text, size) for text, size in zip(texts, widths, strict=True)]
        for parts in itertools.zip_longest(*wrapped, fillvalue=""):
            shown = []
            for part, cell, size, right in zip(parts, row, widths, table.right, strict=True):
                space = " " * (size - _width(part))
                styled = _styled(part, cell.style, colour)
                shown.append(space + styled if right else styled + space)
            yield (" " * _GAP).join(shown).rstrip()


def _wrapped(text: str, size: int) -> list[str]:
    lines = text.split("\n")
    if max(map(_width, lines)) <= size:
        return lines
    return [part for line in lines for part in textwrap.wrap(line, size) or [""]]


def _width(text: str) -> int:
    """Columns that a terminal takes for it."""
    if text.isascii():
        return len(text)
    return sum(0 if unicodedata.combining(each) else 2 if unicodedata.east_asian_width(each) in "WF" else 1
               for each in text)


def _printable(text: str) -> str:
    if text.isprintable():
        return text
    return "".join(each if each.isprintable() or each == "\n" else "\N{REPLACEMENT CHARACTER}"
                   for each in text.replace("\t", "    "))


def _styled(text: str, style: str, colour: bool) -> str:
    words = style.split()
    if not colour or not words or not text:
        return text
    return click.style(text, bold="bold" in words or None, fg=next((word for word in words if word != "bold"), None))


@contextlib.contextmanager
def moving(what: str, file: TextIO) -> Iterator[Callable[[str], None]]:
    """Keep a line on the terminal behind ``file`` with a mark that moves, ``what`` and the seconds, then remove it.

    The yielded function shows another text.
    """
    shown, done, start = [what], threading.Event(), time.monotonic()

    def draw() -> None:
        last = 0
        for mark in itertools.cycle("|/-\\"):
            line = f"{mark} {_printable(shown[0])}  {time.monotonic() - start:.0f} s"
            line = line.replace("\n", " ")[: shutil.get_terminal_size().columns - 1]
            file.write("\r" + line.ljust(last))
            file.flush()
            last = len(line)
            if done.wait(0.25):
                file.write("\r" + " " * last + "\r")
                file.flush()
                return

    drawer = threading.Thread(target=draw, daemon=True)
    drawer.start()
    try:
        yield lambda text: shown.__setitem__(0, text)
    finally:
        done.set()
        drawer.join()
