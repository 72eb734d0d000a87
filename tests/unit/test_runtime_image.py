"""Reading photographs from files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from edgekit.errors import BadInput, MissingExtra
from edgekit.runtime import decode_image


@pytest.fixture
def gradient() -> np.ndarray:
    rows, columns = np.mgrid[0:20, 0:30]
    return np.stack([rows * 12, columns * 8, (rows + columns) * 5], axis=2).astype(np.uint8)


def test_a_png_comes_back_pixel_for_pixel(tmp_path: Path, gradient: np.ndarray) -> None:
    Image.fromarray(gradient).save(tmp_path / "a.png")
    got = decode_image(tmp_path / "a.png")
    assert got.dtype == np.uint8
    assert got.flags.writeable
    assert got.flags.c_contiguous
    np.testing.assert_array_equal(got, gradient)


def test_a_photograph_is_turned_upright(tmp_path: Path, gradient: np.ndarray) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned: rotate by 90 degrees clockwise to see it upright
    Image.fromarray(gradient).save(tmp_path / "a.png", exif=exif)
    np.testing.assert_array_equal(decode_image(tmp_path / "a.png"), np.rot90(gradient, -1))


@pytest.mark.parametrize("mode", ["L", "1", "P", "RGBA", "LA", "CMYK"])
def test_other_8_bit_kinds_become_rgb(tmp_path: Path, gradient: np.ndarray, mode: str) -> None:
    suffix = "tif" if mode == "CMYK" else "png"
    Image.fromarray(gradient).convert(mode).save(tmp_path / f"a.{suffix}")
    got = decode_image(tmp_path / f"a.{suffix}")
    assert got.shape == (20, 30, 3)
    if mode in ("L", "RGBA"):
        wanted = np.asarray(Image.fromarray(gradient).convert(mode).convert("RGB"))
        np.testing.assert_array_equal(got, wanted)


def test_a_16_bit_image_is_refused_rather_than_clipped(tmp_path: Path) -> None:
    Image.fromarray(np.full((4, 4), 40000, np.uint16)).save(tmp_path / "a.png")
    with pytest.raises(BadInput, match="not of 8 bits"):
        decode_image(tmp_path / "a.png")


def test_broken_files_are_bad_input(tmp_path: Path, gradient: np.ndarray) -> None:
    path = tmp_path / "a.jpg"
    Image.fromarray(gradient).save(path, quality=90)
    good = path.read_bytes()
    for broken in (b"", b"no image at all", good[:20], good[: len(good) // 2]):
        path.write_bytes(broken)
        with pytest.raises(BadInput, match=r"a\.jpg"):
            decode_image(path)


def test_bit_flips_in_a_png_never_escape_as_anything_else(tmp_path: Path, gradient: np.ndarray) -> None:
    path = tmp_path / "a.png"
    Image.fromarray(gradient).save(path)
    good = path.read_bytes()
    rng = np.random.default_rng(0)
    refused = 0
    for _ in range(200):
        data = bytearray(good)
        data[rng.integers(len(data))] ^= 1 << rng.integers(8)
        path.write_bytes(data)
        try:
            assert decode_image(path).shape[2] == 3
        except BadInput:
            refused += 1
    assert refused > 100


def test_a_missing_file_and_a_folder_are_bad_input(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="There is no file"):
        decode_image(tmp_path / "none.png")
    with pytest.raises(BadInput, match="cannot be read"):
        decode_image(tmp_path)


@pytest.mark.parametrize("limit", [599, 250])  # Pillow warns above its limit and raises above twice that
def test_an_image_bomb_is_refused_before_it_is_decoded(tmp_path: Path, gradient: np.ndarray, limit: int,
                                                       monkeypatch: pytest.MonkeyPatch) -> None:
    Image.fromarray(gradient).save(tmp_path / "a.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
    with pytest.raises(BadInput, match="pixels"):
        decode_image(tmp_path / "a.png")


def test_without_pillow_the_error_has_the_pip_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> None:
        raise ModuleNotFoundError(name=name)

    monkeypatch.setattr("importlib.import_module", missing)
    with pytest.raises(MissingExtra, match=r"pip install 'edgekit-sdk\[image\]'"):
        decode_image("a.png")
