"""Mutated bundles: each is refused with an error of the tree, or loads with every hash right. Nothing else happens.

Two kinds. *Bytes*: the file is changed anywhere, from single bits to spliced blocks and edited header fields. The
layout leaves no free byte, so any change at all must be refused. *Meaning*: the manifest or the entries are changed and
the file is put together soundly around them (sizes, CRCs, hashes, signature), so that the checks further in are
reached; such a bundle may turn out to be a good one.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import struct
import sys
import zipfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import pytest

from edgekit.bundle import Bundle, load_public_key
from edgekit.bundle.sign import make_signature
from edgekit.errors import EdgeKitError, InternalError

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

SEED = int(os.environ.get("EDGEKIT_FUZZ_SEED", "20261122"))
NUMBERS = (0, 1, 2, 7, 8, 20, 0x21, 63, 65, 127, 128, 255, 256, 16383, 16384, 16385, 0x7FFF, 0xD935, 0xFFFE, 0xFFFF)
WIDE = (*NUMBERS, 0x7FFFFFFF, 0x80000000, 0xFFFFC000, 0xFFFFFFFE, 0xFFFFFFFF)
JUNK: tuple[object, ...] = (
    None, True, 0, -1, 1, 2, 1.5, -0.0, 1e308, 2**31 - 1, 2**31, 2**32, 2**63, 2**64, 2**70, "", "a", "..", "../x",
    "\u0000", "é" * 300, "x" * 5000, "litert", "ort", "onnx", "tflite", "nhwc", "float32", "int8",
    "models/ort-fp32.onnx", "manifest.json", "0" * 64, [], [[]], [1], [0], [-1], [1, 4], [2**31] * 20, ["x"],
    {}, {"a": 1}, {"name": "x"},
)
MAGICS = (b"PK\3\4", b"PK\1\2", b"PK\5\6")


class Fuzzer:
    """The golden bundle in pieces, and the mutations. Each mutation depends on the seed and its number alone."""

    def __init__(self, hostile: ModuleType, whole: bytes, key: Ed25519PrivateKey) -> None:
        self.hostile = hostile
        self.whole = whole
        self.key = key
        self.headers = [at for magic in MAGICS for at in find_all(whole, magic)]
        # Most of the file is padding: half of the changes go to the other bytes.
        self.filled = [at for at, value in enumerate(whole) if value]
        self.by_bytes = (self.bit, self.bits, self.byte, self.number, self.header_field, self.cut, self.delete,
                         self.insert, self.repeat, self.splice, self.append)
        self.by_meaning = (self.manifest_value, self.manifest_key, self.manifest_list, self.manifest_text,
                           self.entry_content, self.entry_list)

    def make(self, number: int) -> tuple[str, bytes, bool]:
        """(name of the mutation, the file, whether it must be refused)."""
        pick = random.Random(f"{SEED}-{number}")
        if pick.random() < 0.6:
            how: Callable[[random.Random], bytes] = pick.choice(self.by_bytes)
            data = how(pick)
            for _ in range(pick.choice((0, 0, 0, 1, 3))):
                data = self.bit(pick, data)
            return how.__name__, data, data != self.whole
        how = pick.choice(self.by_meaning)
        return how.__name__, how(pick), False

    def place(self, pick: random.Random) -> int:
        return pick.choice(self.filled) if pick.random() < 0.5 else pick.randrange(len(self.whole))

    def bit(self, pick: random.Random, data: bytes | None = None) -> bytes:
        data = self.whole if data is None else data
        if not data:
            return data
        at = min(self.place(pick), len(data) - 1)
        return put(data, at, bytes([data[at] ^ (1 << pick.randrange(8))]))

    def bits(self, pick: random.Random) -> bytes:
        data = self.whole
        for _ in range(pick.randint(2, 50)):
            data = self.bit(pick, data)
        return data

    def byte(self, pick: random.Random) -> bytes:
        return put(self.whole, self.place(pick), bytes([pick.choice((0, 1, 0x7F, 0x80, 0xFF, 0x2E, 0x2F))]))

    def number(self, pick: random.Random) -> bytes:
        return put(self.whole, self.place(pick), struct.pack("<I", pick.choice(WIDE)))

    def header_field(self, pick: random.Random) -> bytes:
        at = pick.choice(self.headers) + pick.randrange(0, 46, 2)
        value = struct.pack("<H", pick.choice(NUMBERS)) if pick.random() < 0.5 else struct.pack("<I", pick.choice(WIDE))
        return put(self.whole, at, value)

    def cut(self, pick: random.Random) -> bytes:
        return self.whole[:self.place(pick)] if pick.random() < 0.7 else self.whole[self.place(pick):]

    def delete(self, pick: random.Random) -> bytes:
        at = self.place(pick)
        return self.whole[:at] + self.whole[at + pick.choice((1, 2, 4, 46, 16384)):]

    def insert(self, pick: random.Random) -> bytes:
        at = self.place(pick)
        return self.whole[:at] + pick.randbytes(pick.choice((1, 2, 4, 22, 46))) + self.whole[at:]

    def repeat(self, pick: random.Random) -> bytes:
        at = self.place(pick)
        return self.whole[:at] + self.whole[at:at + pick.choice((1, 22, 46, 16384))] + self.whole[at:]

    def splice(self, pick: random.Random) -> bytes:
        size, source = pick.choice((1, 4, 30, 46, 64, 16384)), self.place(pick)
        return put(self.whole, self.place(pick), self.whole[source:source + size])

    def append(self, pick: random.Random) -> bytes:
        return self.whole + pick.choice((b"\0", self.whole[-22:], bytes(16384), self.whole))

    def together(self, pick: random.Random, items: list[Any], manifest: bytes) -> bytes:
        """A sound file: with hashes and sizes of the items if the manifest can hold them, signed or not."""
        items = [self.hostile.Item(b"manifest.json", manifest), *items]
        if pick.random() < 0.5:
            items.insert(1, self.hostile.Item(b"manifest.sig", make_signature(manifest, self.key)))
        made: bytes = self.hostile.build(items)
        return made

    def manifest(self) -> dict[str, Any]:
        parsed: dict[str, Any] = json.loads(self.hostile.golden()[0].data)
        return parsed

    def manifest_value(self, pick: random.Random) -> bytes:
        manifest = self.manifest()
        for _ in range(pick.choice((1, 1, 1, 2, 4))):
            holder, key = pick.choice(places(manifest))
            holder[key] = pick.choice(JUNK)
        return self.together(pick, self.hostile.golden()[1:], dump(manifest))

    def manifest_key(self, pick: random.Random) -> bytes:
        manifest = self.manifest()
        holder, key = pick.choice([place for place in places(manifest) if isinstance(place[0], dict)])
        value = holder.pop(key)
        if pick.random() < 0.5:
            holder[pick.choice(("x", "name", "entry", key.upper()))] = value
        return self.together(pick, self.hostile.golden()[1:], dump(manifest))

    def manifest_list(self, pick: random.Random) -> bytes:
        manifest = self.manifest()
        lists = [holder[key] for holder, key in places(manifest) if isinstance(holder[key], list) and holder[key]]
        chosen = pick.choice(lists)
        pick.choice((chosen.pop, chosen.reverse, chosen.clear, lambda: chosen.append(chosen[0]),
                     lambda: chosen.extend(chosen * 50)))()
        return self.together(pick, self.hostile.golden()[1:], dump(manifest))

    def manifest_text(self, pick: random.Random) -> bytes:
        raw = self.hostile.golden()[0].data
        at = pick.randrange(len(raw))
        inserted = raw[:at] + pick.choice((b"{", b"[", b'"', b",", b"9" * 400, b"\xff", b" ")) + raw[at:]
        raw = pick.choice((inserted, raw[:at], raw[:at] + raw[at + 1:], put(raw, at, pick.randbytes(1)), raw + raw))
        return self.together(pick, self.hostile.golden()[1:], raw)

    def entry_content(self, pick: random.Random) -> bytes:
        """Content that is other, with its size and hash told rightly."""
        manifest, items = self.manifest(), self.hostile.golden()[1:]
        index = pick.randrange(len(items))
        old = items[index].data
        data = pick.choice((b"", old[:-1], old + b"x", pick.randbytes(len(old))))
        items[index] = items[index].but(data=data)
        entry = manifest["entries"][index]
        entry["size_bytes"] = len(data) + pick.choice((0, 0, 0, 1, -1))
        entry["sha256"] = hashlib.sha256(data).hexdigest()
        return self.together(pick, items, dump(manifest))

    def entry_list(self, pick: random.Random) -> bytes:
        manifest, items = self.manifest(), self.hostile.golden()[1:]
        index = pick.randrange(len(items))
        change = pick.randrange(4)
        if change == 0:
            del items[index]
        elif change == 1:
            items[index] = items[index].but(name=pick.choice((b"../x", b"labels.TXT", b"zzz", b"a", b"manifest.sig")))
        elif change == 2:
            items.insert(index, self.hostile.Item(pick.choice((b"zzz", b"models/a", b"labels.txt")), b"x"))
        else:
            pick.shuffle(items)
        if pick.random() < 0.5:
            manifest["entries"] = [{"name": item.name.decode(), "size_bytes": len(item.data),
                                    "sha256": hashlib.sha256(item.data).hexdigest()} for item in items]
        return self.together(pick, items, dump(manifest))


def find_all(data: bytes, part: bytes) -> list[int]:
    found, at = [], data.find(part)
    while at >= 0:
        found.append(at)
        at = data.find(part, at + 1)
    return found


def put(data: bytes, at: int, value: bytes) -> bytes:
    return data[:at] + value + data[at + len(value):]


def dump(manifest: dict[str, Any]) -> bytes:
    return json.dumps(manifest, separators=(",", ":"), ensure_ascii=False).encode(errors="surrogatepass")


def places(value: Any) -> list[tuple[Any, Any]]:
    """Every (container, key) in a JSON value."""
    keys = list(value) if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ()
    return [place for key in keys for place in ((value, key), *places(value[key]))]


def load_all(path: Path, public_key: Any) -> None:
    """Open, and check all that is read against another ZIP reader and the hash function itself."""
    with Bundle.open(path, public_key=public_key) as bundle, zipfile.ZipFile(path) as other:
        bundle.verify_all()
        assert other.read("manifest.json") == bundle.manifest_bytes
        assert sorted({*other.namelist()} - {"manifest.json", "manifest.sig"}) == sorted(
            entry.name for entry in bundle.manifest.entries)
        for entry in bundle.manifest.entries:
            data = bundle.read(entry.name)
            assert data == other.read(entry.name)
            assert (len(data), hashlib.sha256(data).hexdigest()) == (entry.size_bytes, entry.sha256)


def run(fuzzer: Fuzzer, count: int, path: Path, public_key: Any) -> Counter[str]:
    results: Counter[str] = Counter()
    for number in range(count):
        how, data, must_refuse = fuzzer.make(number)
        path.unlink(missing_ok=True)  # some file systems flush a file that is cut and written again: 5 times slower
        path.write_bytes(data)
        where = f"mutation {number} ({how}) of seed {SEED}"
        try:
            load_all(path, public_key if number % 2 else None)
        except InternalError:
            raise
        except EdgeKitError as error:
            results["refused" if error.message else "refused without a word"] += 1
            continue
        except BaseException as error:
            raise AssertionError(f"{where}: {error!r}") from error
        assert not must_refuse, f"{where}: a changed file was accepted"
        results["loaded"] += 1
    return results


@pytest.fixture(scope="module")
def fuzzer(hostile: ModuleType, conformance: Path, test_key: Ed25519PrivateKey) -> Fuzzer:
    return Fuzzer(hostile, (conformance / "golden.edge").read_bytes(), test_key)


@pytest.mark.parametrize("count", [1500, pytest.param(20_000, marks=pytest.mark.slow)])
def test_mutated_bundles(fuzzer: Fuzzer, conformance: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str],
                         count: int) -> None:
    results = run(fuzzer, count, tmp_path / "m.edge", load_public_key(conformance / "test_key.pub"))
    with capsys.disabled():
        sys.stdout.write(f"\n{count} mutated bundles (seed {SEED}): {results['refused']} refused, "
                         f"{results['loaded']} loaded with every hash right\n")
    assert results["refused"] + results["loaded"] == count
    # A fuzzer whose sound bundles are all refused, or all loaded, would not reach the checks further in.
    assert results["loaded"] > count / 100
    assert results["refused"] > count / 2
