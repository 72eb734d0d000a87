"""``edgekit delta`` as a person types it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.conftest import Cli

GOLDEN = Path(__file__).resolve().parents[2] / "runtimes" / "conformance"


@pytest.fixture
def pair(cli: Cli, tmp_path: Path) -> tuple[Path, Path]:
    """The golden bundle, and the same with another signature."""
    assert cli("keygen", tmp_path / "k.pem", tmp_path / "k.pub").returncode == 0
    assert cli("sign", GOLDEN / "golden.edge", "-o", tmp_path / "new.edge", "--key", tmp_path / "k.pem").returncode == 0
    return GOLDEN / "golden.edge", tmp_path / "new.edge"


def test_make_and_apply(cli: Cli, tmp_path: Path, pair: tuple[Path, Path]) -> None:
    old, new = pair
    made = cli("delta", "make", old, new, "-o", tmp_path / "d", "--json")
    result = json.loads(made.stdout)
    assert result["entries_changed"] == 1
    assert result["size_bytes"] < 0.05 * result["result_bytes"]
    assert "1 of" in cli("delta", "make", old, new, "-o", tmp_path / "d").stdout
    done = cli("delta", "apply", old, tmp_path / "d", "-o", tmp_path / "out.edge", "--public-key", tmp_path / "k.pub",
               "--require-signature", "--json")
    assert json.loads(done.stdout)["action"] == "apply"
    assert (tmp_path / "out.edge").read_bytes() == new.read_bytes()


def test_a_broken_delta_leaves_the_old_bundle(cli: Cli, tmp_path: Path, pair: tuple[Path, Path]) -> None:
    old = tmp_path / "device.edge"
    old.write_bytes(pair[0].read_bytes())
    assert cli("delta", "make", pair[0], pair[1], "-o", tmp_path / "d").returncode == 0
    data = bytearray((tmp_path / "d").read_bytes())
    data[len(data) // 2] ^= 1
    (tmp_path / "d").write_bytes(data)
    done = cli("delta", "apply", old, tmp_path / "d", "-o", old)
    assert done.returncode == 1
    assert "its hash is wrong" in done.stderr
    assert old.read_bytes() == pair[0].read_bytes()
    assert cli("delta", "make", old, pair[1], "-o", tmp_path / "d2", "--public-key", "x").returncode == 2
