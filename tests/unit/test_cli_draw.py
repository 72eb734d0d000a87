"""Text and tables of the command line."""

from __future__ import annotations

import io

import pytest

from edgekit.cli.draw import Group, Table, Text, moving, render


def small() -> Table:
    table = Table("name", ">ms", "why")
    table.add_row(Text("conv"), "1.25", "it is the slowest of all layers")
    table.add_row("a\nb", "12.5")
    return table


def test_columns_are_aligned_and_nothing_hangs_over() -> None:
    assert render(Group(Text("head\n"), small(), Text(), "tail")).split("\n") == [
        "head",
        "",
        "name    ms  why",
        "conv  1.25  it is the slowest of all layers",
        "a     12.5",
        "b",
        "",
        "tail",
    ]
    assert render(Table("a", ">b")) == "a  b"


def test_a_narrow_terminal_wraps_the_widest_column() -> None:
    assert render(small(), 24).split("\n") == [
        "name    ms  why",
        "conv  1.25  it is the",
        "            slowest of",
        "            all layers",
        "a     12.5",
        "b",
    ]
    assert max(map(len, render(small(), 1).split("\n"))) <= 20, "no column gets narrower than 8"


def test_wide_characters_take_two_columns_and_accents_none() -> None:
    table = Table("x", "y")
    table.add_row("猫", "1")
    table.add_row("e\u0301e", "2")
    table.add_row("four", "3")
    assert render(table).split("\n") == ["x     y", "猫    1", "e\u0301e    2", "four  3"]


def test_names_cannot_command_the_terminal() -> None:
    table = Table("name")
    table.add_row("\x1b[2Jgone\r")
    assert render(Group(table, Text("\x07bell\tok")), colour=True) == "\x1b[1mname\x1b[0m\n�[2Jgone�\n�bell    ok"


@pytest.mark.parametrize(("style", "shown"), [
    ("green", "\x1b[32mok\x1b[0m"), ("bold red", "\x1b[31m\x1b[1mok\x1b[0m"), ("", "ok"),
])
def test_styles_are_for_terminals(style: str, shown: str) -> None:
    assert render(Text("ok", style), colour=True) == shown
    assert render(Text("ok", style)) == "ok"


def test_brackets_are_text() -> None:
    table = Table("[red]", ">n")
    table.add_row("x[0]", "[1]")
    assert render(table) == "[red]    n\nx[0]   [1]"


def test_a_moving_line_shows_its_texts_and_is_removed() -> None:
    file = io.StringIO()
    with moving("Working", file) as show:
        show("Still\x1b working")
    said = file.getvalue()
    assert "working" in said.lower()
    assert "\x1b" not in said
    assert said.endswith("\r")
    last = said.rstrip("\r").rpartition("\r")[2]
    assert last.strip() == ""
    with pytest.raises(ZeroDivisionError), moving("Failing", file):
        raise ZeroDivisionError
