"""When a file of prepared weights may be used. No engine runs here: the content is made up."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from edgekit.errors import BadRecipe, WriteFailed
from edgekit.runtime.engines.weight_cache import WeightCache

SHA = "ab" * 32


def cache_in(folder: Path, sha: str = SHA, version: str = "engine 1", threads: int = 1) -> WeightCache:
    return WeightCache(folder, sha, version, threads)


def build(cache: WeightCache, content: bytes = b"weights" * 100) -> None:
    with cache.building() as path:
        path.write_bytes(content)


def test_what_was_built_is_good_for_the_next_one(tmp_path: Path) -> None:
    folder = tmp_path / "new" / "cache"
    assert not cache_in(folder).is_good()
    build(cache_in(folder))
    assert cache_in(folder).is_good()
    assert sorted(path.suffix for path in folder.iterdir()) == [".json", ".xnnpack"]


@pytest.mark.parametrize("other", [{"sha": "cd" * 32}, {"version": "engine 2"}, {"threads": 2}])
def test_another_model_engine_or_thread_count_has_another_file(tmp_path: Path, other: dict[str, object]) -> None:
    build(cache_in(tmp_path))
    changed = cache_in(tmp_path, **other)  # type: ignore[arg-type]
    assert changed.path != cache_in(tmp_path).path
    assert not changed.is_good()


def test_a_flipped_bit_a_cut_and_an_absent_file_are_not_good(tmp_path: Path) -> None:
    cache = cache_in(tmp_path)
    for damage in (lambda data: bytes([data[0] ^ 1]) + data[1:], lambda data: data[:-1], lambda _: b""):
        build(cache)
        assert cache.is_good()
        cache.path.write_bytes(damage(cache.path.read_bytes()))
        assert not cache.is_good()
    build(cache)
    cache.path.unlink()
    assert not cache.is_good()


def test_a_flipped_bit_is_found_behind_the_old_modification_time(tmp_path: Path) -> None:
    cache = cache_in(tmp_path)
    build(cache)
    status = cache.path.stat()
    data = bytearray(cache.path.read_bytes())
    data[5] ^= 4
    cache.path.write_bytes(data)
    os.utime(cache.path, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert not cache.is_good()


def test_a_copy_with_the_same_content_is_good(tmp_path: Path) -> None:
    cache = cache_in(tmp_path)
    build(cache)
    data = cache.path.read_bytes()
    cache.path.unlink()
    cache.path.write_bytes(data)
    assert cache.is_good()


@pytest.mark.parametrize("record", [b"", b"{", b"[]", b"{}", b'{"sha256": 1}', b"\xff"])
def test_a_broken_record_is_not_good(tmp_path: Path, record: bytes) -> None:
    cache = cache_in(tmp_path)
    build(cache)
    cache.path.with_suffix(".json").write_bytes(record)
    assert not cache.is_good()


def test_a_failed_build_leaves_nothing_behind(tmp_path: Path) -> None:
    cache = cache_in(tmp_path)

    def fail() -> None:
        with cache.building() as path:
            path.write_bytes(b"half")
            raise RuntimeError("the engine refused")

    with pytest.raises(RuntimeError):
        fail()
    assert not list(tmp_path.iterdir())


def test_a_network_without_weights_leaves_no_file(tmp_path: Path) -> None:
    cache = cache_in(tmp_path)
    with cache.building():
        pass
    assert not cache.is_good()
    assert not list(tmp_path.iterdir())


def test_room_is_asked_for_with_a_margin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = cache_in(tmp_path)
    assert cache.has_room(1000)
    monkeypatch.setattr("shutil.disk_usage", lambda _: _Usage(1 << 20))
    assert not cache.has_room(1000)


class _Usage:
    def __init__(self, free: int) -> None:
        self.free = free


@pytest.mark.skipif(os.name != "posix", reason="permissions are checked on POSIX systems")
def test_a_folder_that_others_can_write_to_is_refused(tmp_path: Path) -> None:
    tmp_path.chmod(0o777)
    with pytest.raises(BadRecipe, match="Others can write"):
        cache_in(tmp_path)


def test_a_folder_that_cannot_be_made_is_a_clear_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(WriteFailed, match="cache folder"):
        cache_in(tmp_path / "file" / "cache")
