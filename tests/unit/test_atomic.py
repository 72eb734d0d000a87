from __future__ import annotations

import errno
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from edgekit.atomic import write_atomically
from edgekit.errors import WriteFailed

OLD = b"the old content"

TWO_WRITERS = """
import sys
from pathlib import Path
from edgekit.atomic import write_atomically
fill = sys.argv[2].encode()
for _ in range(40):
    write_atomically(Path(sys.argv[1]), (fill * 65536 for _ in range(16)))
"""

LIMITED = """
import resource, sys
from pathlib import Path
from edgekit.atomic import write_atomically
from edgekit.errors import WriteFailed
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
try:
    write_atomically(Path(sys.argv[1]), (bytes(30_000) for _ in range(10)))
except WriteFailed as error:
    print(error)
    sys.exit(3)
"""


def names(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir()]


def test_bytes_and_chunks_give_the_same_file(tmp_path: Path) -> None:
    write_atomically(tmp_path / "a", b"abcdef")
    write_atomically(tmp_path / "b", iter([b"abc", b"", b"def"]))
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes() == b"abcdef"


def test_an_existing_file_is_replaced_and_nothing_else_is_left(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(OLD * 100)
    write_atomically(path, b"new")
    assert path.read_bytes() == b"new"
    assert names(tmp_path) == ["a"]


def test_a_reader_of_the_old_file_keeps_it(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(OLD)
    with path.open("rb") as reader:
        write_atomically(path, b"new")
        assert reader.read() == OLD


def test_permissions_follow_the_umask(tmp_path: Path) -> None:
    old = os.umask(0o027)
    try:
        write_atomically(tmp_path / "a", b"x")
    finally:
        os.umask(old)
    assert (tmp_path / "a").stat().st_mode & 0o777 == 0o640


def test_a_link_keeps_pointing_to_the_file_that_is_written(tmp_path: Path) -> None:
    (tmp_path / "real").write_bytes(OLD)
    (tmp_path / "link").symlink_to(tmp_path / "real")
    write_atomically(tmp_path / "link", b"new")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "real").read_bytes() == b"new"


def test_a_device_is_written_to_and_not_replaced() -> None:
    write_atomically(Path(os.devnull), b"x" * 100)
    assert Path(os.devnull).is_char_device()


def test_partial_writes_are_continued(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.write
    monkeypatch.setattr(os, "write", lambda descriptor, data: real(descriptor, bytes(data[:7])))
    write_atomically(tmp_path / "a", bytes(range(256)))
    assert (tmp_path / "a").read_bytes() == bytes(range(256))


@pytest.mark.parametrize("step", ["write", "fsync"])
@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO])
def test_a_full_or_failing_disk_leaves_the_old_file_alone(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str, number: int) -> None:
    path = tmp_path / "a"
    path.write_bytes(OLD)

    def fail(*_: object) -> int:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, step, fail)
    with pytest.raises(WriteFailed, match=r"Could not write .*a': ") as caught:
        write_atomically(path, b"new")
    assert os.strerror(number) in caught.value.message
    assert caught.value.remedy
    assert path.read_bytes() == OLD
    assert names(tmp_path) == ["a"]


def test_the_disk_fills_up_half_way(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(OLD)
    done = subprocess.run([sys.executable, "-c", LIMITED, path], capture_output=True, text=True, check=False)
    assert done.returncode == 3, done.stderr
    assert "File too large" in done.stdout
    assert path.read_bytes() == OLD
    assert names(tmp_path) == ["a"]


def test_an_error_of_the_iterator_passes_and_leaves_nothing(tmp_path: Path) -> None:
    def chunks() -> Iterator[bytes]:
        yield b"half"
        raise KeyError("ours")

    with pytest.raises(KeyError, match="ours"):
        write_atomically(tmp_path / "a", chunks())
    assert names(tmp_path) == []


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(WriteFailed, match="Create the folder") as caught:
        write_atomically(tmp_path / "none" / "a", b"x")
    assert str(tmp_path / "none") in caught.value.remedy
    assert names(tmp_path) == []


def test_a_folder_in_the_way(tmp_path: Path) -> None:
    with pytest.raises(WriteFailed, match="It is a folder"):
        write_atomically(tmp_path, b"x")
    assert names(tmp_path) == []


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="needs a user who may not write everywhere")
def test_no_permission(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    try:
        with pytest.raises(WriteFailed, match="Permission denied"):
            write_atomically(tmp_path / "a", b"x")
    finally:
        tmp_path.chmod(0o700)


def test_two_processes_write_the_same_file(tmp_path: Path) -> None:
    path = tmp_path / "a"
    writers = [subprocess.Popen([sys.executable, "-c", TWO_WRITERS, path, letter]) for letter in "AB"]
    seen: set[bytes] = set()
    while any(writer.poll() is None for writer in writers):
        if path.exists():
            content = path.read_bytes()
            assert len(content) == 2**20
            assert content in (b"A" * 2**20, b"B" * 2**20)
            seen.add(content[:1])
    assert [writer.returncode for writer in writers] == [0, 0]
    assert seen
    assert names(tmp_path) == ["a"]
