"""Progress of work that is done in a child process, shown by the parent on a terminal."""

from __future__ import annotations

import contextlib
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

from edgekit.cli.frame import Frame

__all__ = ["followed", "reporter"]

_EVERY_S = 0.2


@contextlib.contextmanager
def followed(frame: Frame, what: str) -> Iterator[Path | None]:
    """``frame.working(what)``; yields a file in which the child states its step, or None when nothing is shown."""
    with frame.working(what) as show:
        if not frame.shows_progress:
            yield None
            return
        with tempfile.TemporaryDirectory(prefix="edgekit-") as folder:
            path, ended = Path(folder) / "step", threading.Event()
            follower = threading.Thread(target=_follow, args=(path, ended, lambda step: show(f"{what}: {step}")))
            follower.start()
            try:
                yield path
            finally:
                ended.set()
                follower.join()


def _follow(path: Path, ended: threading.Event, show: Callable[[str], None]) -> None:
    while not ended.wait(_EVERY_S):
        if path.exists():
            show(path.read_text(encoding="utf-8"))


def reporter(path: Path | None) -> Callable[[str], None]:
    """A function that states a step in ``path``, for the child; it does nothing without one."""
    if path is None:
        return lambda _: None

    def report(step: str) -> None:
        new = path.with_suffix(".new")
        new.write_text(step, encoding="utf-8")
        new.replace(path)  # at once, so that the parent never reads half of it

    return report
