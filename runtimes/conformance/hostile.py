"""Bundles that every reader must refuse, made from the golden ones. What each must raise is in hostile.json.

``python hostile.py FOLDER`` writes them as FOLDER/<name>.edge for readers in other languages; ``python hostile.py``
alone writes hostile.json anew.
"""

from __future__ import annotations

import hashlib
import json
import struct
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from edge_zip import Item, Quirks, build
from hostile_edits import LADDER_EDITS, MANIFEST_EDITS, PLAN_EDITS

__all__ = ["FOLDER", "TEST_SEED", "Case", "cases"]

FOLDER = Path(__file__).resolve().parent
TEST_SEED = bytes(range(32))
"""The private key that golden.edge is signed with: public on purpose, worth nothing."""

ADAPTIVE = "golden_adaptive.edge"
SIGNATURE_DOMAIN = b"edgekit bundle manifest 1\x00"
Json = dict[str, Any]


class Case(NamedTuple):
    """``when``: "open", or "read": opening succeeds, verifying all entries must fail. ``key``: open with the key."""

    name: str
    data: bytes
    error: str
    when: str = "open"
    key: bool = False


def golden(name: str = "golden.edge") -> list[Item]:
    """The entries of a good bundle, without the signature."""
    with zipfile.ZipFile(FOLDER / name) as file:
        return [Item(name.encode(), file.read(name)) for name in file.namelist() if name != "manifest.sig"]


def sign(message: bytes) -> bytes:
    """The signature of the test key."""
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    return Ed25519PrivateKey.from_private_bytes(TEST_SEED).sign(message)


def cases() -> Iterator[Case]:
    """Every hostile bundle. Names are unique."""
    yield from _truncated()
    yield from _names()
    yield from _headers()
    yield from _layout()
    yield from _content()
    yield from _signatures()
    for name, raw in _manifest_bytes():
        yield Case(f"manifest-{name}", build(_with_manifest(raw)), "SchemaTooNew" if "newer" in name else "BadBundle")
    for name, edit in MANIFEST_EDITS.items():
        manifest = json.loads(golden()[0].data)
        edit(manifest)
        yield Case(f"field-{name}", build(_with_manifest(_dump(manifest))), "BadBundle")
    for name, edit in LADDER_EDITS.items():
        items = golden(ADAPTIVE)
        manifest = json.loads(items[0].data)
        edit(manifest)
        yield Case(f"ladder-{name}", build([items[0].but(data=_dump(manifest)), *items[1:]]), "BadBundle")
    for name, edit in PLAN_EDITS.items():
        plan = json.loads(next(item.data for item in golden(ADAPTIVE) if item.name == b"plan.json"))
        edit(plan)
        yield Case(f"plan-{name}", build(_with_plan(_dump(plan))), "BadBundle", "read")
    for name, raw in _plan_bytes():
        yield Case(f"plan-{name}", build(_with_plan(raw)), "BadBundle", "read")


def _truncated() -> Iterator[Case]:
    whole = build(golden())
    yield Case("empty", b"", "BadBundle")
    for count in (4, 8, 21, 22, 100, 16384, len(whole) // 2, len(whole) - 22, len(whole) - 1):
        yield Case(f"truncated-{count}", whole[:count], "BadBundle")
    yield Case("not-zip", bytes(range(256)) * 4, "BadBundle")
    yield Case("only-end-record", whole[-22:], "BadBundle")
    yield Case("empty-zip", b"PK\5\6" + bytes(18), "BadBundle")
    yield Case("flipped-bit-in-model", _flip(whole, whole.index(b"TFL3") + 40), "BadBundle", "read")
    yield Case("flipped-bit-in-manifest", _flip(whole, whole.index(b'"entries"') + 2), "BadBundle")


def _names() -> Iterator[Case]:
    items = golden()
    spellings = {
        "parent": b"../x.bin", "inner-parent": b"models/../../x.bin", "absolute": b"/x.bin",
        "backslash": b"models\\x.bin", "drive": b"C:/x.bin", "dot": b"models/./x.bin",
        "empty-segment": b"models//x.bin", "folder": b"models/x/",
        "hidden": b".x", "end-dot": b"models/x.", "space": b"models/x y", "newline": b"x\n", "nul": b"x\0y",
        "non-ascii": "modèle".encode(), "long": b"x" * 256, "empty": b"",
    }
    for label, name in spellings.items():
        # The manifest names the entry as well, so that only its name can be what is wrong.
        manifest = json.loads(items[0].data)
        entry = {"name": name.decode(errors="replace"), "size_bytes": 1, "sha256": hashlib.sha256(b"x").hexdigest()}
        manifest["entries"] = sorted([*manifest["entries"], entry], key=lambda each: str(each["name"]))
        extra = [*_with_manifest(_dump(manifest)), Item(name, b"x")]
        yield Case(f"name-{label}", build(extra[:1] + sorted(extra[1:], key=lambda item: item.name)), "BadBundle")
    last = items[-1]
    yield Case("name-twice", build([*items, last]), "BadBundle")
    yield Case("name-twice-in-other-case", build([*items, last.but(name=last.name.upper())]), "BadBundle")
    yield Case("name-is-folder-of-other", build([*items, Item(last.name + b"/x", b"x")]), "BadBundle")
    renamed = last.but(central_name=last.name[:-1] + b"_")
    yield Case("name-differs-in-directory", build([*items[:-1], renamed]), "BadBundle")


def _headers() -> Iterator[Case]:
    *first, last = golden()
    size = len(last.data)
    changes: dict[str, Json] = {
        "compressed": {"method": 8}, "unknown-method": {"method": 99}, "encrypted": {"flags": 1},
        "data-descriptor": {"flags": 8}, "utf8-flag": {"flags": 0x800}, "time": {"time": 1},
        "crc-of-other-data": {"crc": 1}, "local-size-larger": {"local_size": size + 1},
        "local-size-smaller": {"local_size": size - 1}, "local-size-huge": {"local_size": 0xFFFFFFFF},
        "directory-size-larger": {"central_size": size + 1}, "directory-size-smaller": {"central_size": size - 1},
        "both-sizes-larger": {"local_size": size + 5, "central_size": size + 5},
        "both-sizes-smaller": {"local_size": size - 4, "central_size": size - 4},
        "both-sizes-huge": {"local_size": 0xFFFFFFF0, "central_size": 0xFFFFFFF0},
        "zip64-sizes": {"local_size": 0xFFFFFFFF, "central_size": 0xFFFFFFFF}, "offset-of-other": {"offset": 0},
        "offset-outside": {"offset": 0x7FFFFFFF}, "misaligned": {"shift": 4}, "no-padding": {"padding": b""},
        "padding-with-content": {"padding": b"x" * 9}, "gap-after": {"gap": bytes(16)},
        "directory-extra": {"central_extra": b"\x01\x00\x00\x00"},
    }
    for label, change in changes.items():
        when = "read" if label == "crc-of-other-data" else "open"
        yield Case(f"header-{label}", build([*first, last.but(**change)]), "BadBundle", when)
    longer = len(first[1].data) + 16384 + 30
    overlap = first[1].but(local_size=longer, central_size=longer)
    yield Case("header-overlap", build([first[0], overlap, *first[2:], last]), "BadBundle")
    yield Case("header-gap-between", build([first[0].but(gap=b"hidden"), *first[1:], last]), "BadBundle")


def _layout() -> Iterator[Case]:
    items = golden()
    quirks = {
        "prefix": Quirks(prefix=b"#!/bin/sh\n"), "prefix-aligned": Quirks(prefix=bytes(16384)),
        "suffix": Quirks(suffix=b"x"), "second-end-record": Quirks(suffix=b"PK\5\6" + bytes(18)),
        "comment": Quirks(comment=b"hello"), "before-directory": Quirks(before_directory=b"hidden"),
        "after-directory": Quirks(between=b"hidden"), "count-smaller": Quirks(count=len(items) - 1),
        "count-larger": Quirks(count=len(items) + 1), "count-zero": Quirks(count=0),
        "count-zip64": Quirks(count=0xFFFF), "disk": Quirks(disk=1),
        "directory-elsewhere": Quirks(directory_offset=16384),
        "directory-zip64": Quirks(directory_offset=0xFFFFFFFF), "hidden-entry": Quirks(hidden=(Item(b"hidden", b"x"),)),
    }
    for label, quirk in quirks.items():
        yield Case(f"layout-{label}", build(items, quirk), "BadBundle")
    yield Case("layout-manifest-last", build([*items[1:], items[0]]), "BadBundle")
    yield Case("layout-no-manifest", build(items[1:]), "BadBundle")
    yield Case("layout-not-sorted", build([items[0], *reversed(items[1:])]), "BadBundle")
    yield Case("layout-signature-not-second", build([*items, Item(b"manifest.sig", bytes(64))]), "BadBundle")
    many = [*items, *(Item(b"x%05d" % number, b"", padding=b"") for number in range(5000))]
    yield Case("layout-too-many", build(many), "BadBundle")


def _content() -> Iterator[Case]:
    items = golden()
    yield Case("entry-not-in-manifest", build([*items, Item(b"zzz", b"x")]), "BadBundle")
    yield Case("entry-missing", build(items[:-1]), "BadBundle")
    yield Case("entry-other-size", build([*items[:-1], items[-1].but(data=items[-1].data + b"x")]), "BadBundle")
    yield Case("entry-other-content", build([*items[:-1], items[-1].but(data=bytes(len(items[-1].data)))]),
               "BadBundle", "read")


def _signatures() -> Iterator[Case]:
    manifest, *rest = golden()

    def signed(signature: bytes, content: bytes = manifest.data) -> bytes:
        return build([manifest.but(data=content), Item(b"manifest.sig", signature), *rest])

    good = sign(SIGNATURE_DOMAIN + manifest.data)
    other = json.loads(manifest.data)
    other["name"] = "other"
    yield Case("signature-missing", build([manifest, *rest]), "SignatureMismatch", key=True)
    yield Case("signature-of-zeros", signed(bytes(64)), "SignatureMismatch", key=True)
    yield Case("signature-flipped", signed(_flip(good, 5)), "SignatureMismatch", key=True)
    yield Case("signature-without-domain", signed(sign(manifest.data)), "SignatureMismatch", key=True)
    yield Case("signature-of-other-manifest", signed(good, _dump(other)), "SignatureMismatch", key=True)
    yield Case("signature-and-broken-manifest", signed(good, b"{"), "SignatureMismatch", key=True)
    yield Case("signature-short", signed(good[:63]), "BadBundle")
    yield Case("signature-long", signed(good + b"\0"), "BadBundle")


def _manifest_bytes() -> Iterator[tuple[str, bytes]]:
    raw = golden()[0].data
    yield "empty", b""
    yield "not-json", b"hello"
    yield "not-utf8", raw.replace(b'"golden"', b'"gold\xff"')
    yield "array", b"[]"
    yield "null", b"null"
    yield "deep", b"[" * 100_000
    yield "deep-recipe", raw.replace(b'"recipe":{', b'"recipe":{"a":' + b"[" * 100_000 + b"]" * 100_000 + b",")
    yield "too-large", raw[:-1] + b" " * 4_194_305 + b"}"
    yield "trailing", raw + b"{}"
    yield "repeated-key", raw.replace(b'{"schema_version":1', b'{"name":"other","schema_version":1', 1)
    yield "repeated-nested-key", raw.replace(b'"provenance":{', b'"provenance":{"source_name":"other",', 1)
    yield "nan", raw.replace(b'"tolerance":0.0001', b'"tolerance":NaN')
    yield "infinite", raw.replace(b'"tolerance":0.0001', b'"tolerance":1e999')
    yield "version-float", raw.replace(b'"schema_version":1', b'"schema_version":1.5')
    yield "version-huge", raw.replace(b'"schema_version":1', b'"schema_version":' + b"9" * 5000)
    yield "version-newer", raw.replace(b'"schema_version":1', b'"schema_version":3')
    yield "version-newer-and-unknown", b'{"schema_version":7,"anything":[1,2,3]}'


def _plan_bytes() -> Iterator[tuple[str, bytes]]:
    raw = next(item.data for item in golden(ADAPTIVE) if item.name == b"plan.json")
    yield "not-json", b"hello"
    yield "deep", b"[" * 100_000
    yield "repeated-key", raw.replace(b'{"device":', b'{"device":"other","device":', 1)
    yield "too-large", raw[:-1] + b" " * 1_048_577 + b"}"
    yield "nan", raw.replace(b'"overhead_ms":0.25', b'"overhead_ms":NaN')
    yield "infinite", raw.replace(b'"overhead_ms":0.25', b'"overhead_ms":1e999')


def _with_plan(raw: bytes) -> list[Item]:
    """The adaptive bundle with this plan, whose hash and size the manifest has right."""
    items = [item.but(data=raw) if item.name == b"plan.json" else item for item in golden(ADAPTIVE)]
    manifest = json.loads(items[0].data)
    for entry in manifest["entries"]:
        if entry["name"] == "plan.json":
            entry.update(size_bytes=len(raw), sha256=hashlib.sha256(raw).hexdigest())
    return [items[0].but(data=_dump(manifest)), *items[1:]]


def _dump(manifest: Json) -> bytes:
    return json.dumps(manifest, separators=(",", ":")).encode()


def _with_manifest(raw: bytes) -> list[Item]:
    first, *rest = golden()
    return [first.but(data=raw), *rest]


def _flip(data: bytes, at: int) -> bytes:
    return data[:at] + struct.pack("B", data[at] ^ 4) + data[at + 1:]


def main() -> None:
    """Write the expectations, or the files."""
    if len(sys.argv) > 1:
        for case in cases():
            (Path(sys.argv[1]) / f"{case.name}.edge").write_bytes(case.data)
        return
    lines = [json.dumps({"name": case.name, "error": case.error, "when": case.when, "key": case.key,
                         "sha256": hashlib.sha256(case.data).hexdigest()}) for case in cases()]
    (FOLDER / "hostile.json").write_text("[\n" + ",\n".join(lines) + "\n]\n", encoding="ascii")


if __name__ == "__main__":
    main()
