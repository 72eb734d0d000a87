"""Validation data: .npz files and folders of images."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from edgekit.errors import BadInput, UnknownName
from edgekit.plan_data import open_validation

IMAGES = np.random.default_rng(0).integers(0, 256, (6, 4, 5, 3), np.uint8)


def test_a_npz_file_gives_its_images_and_labels_every_time_anew(tmp_path: Path) -> None:
    np.savez(tmp_path / "v.npz", images=IMAGES, labels=np.arange(6, dtype=np.uint8), more=np.zeros(2))
    data = open_validation(tmp_path / "v.npz")
    assert data.count == 6
    assert data.labels is not None
    assert data.labels.tolist() == list(range(6))
    for _ in range(2):
        np.testing.assert_array_equal(np.stack(list(data.images())), IMAGES)


def test_a_part_keeps_images_and_labels_together_and_is_the_same_every_time(tmp_path: Path) -> None:
    np.savez(tmp_path / "v.npz", images=IMAGES, labels=np.arange(6))
    data = open_validation(tmp_path / "v.npz", limit=3)
    assert data.count == 3
    assert data.labels is not None
    np.testing.assert_array_equal(np.stack(list(data.images())), IMAGES[data.labels])
    again = open_validation(tmp_path / "v.npz", limit=3)
    assert again.labels is not None
    assert again.labels.tolist() == data.labels.tolist()
    assert open_validation(tmp_path / "v.npz", limit=60).count == 6


def test_a_folder_without_classes_has_no_labels(tmp_path: Path) -> None:
    image = pytest.importorskip("PIL.Image")
    for index, pixels in enumerate(IMAGES):
        image.fromarray(pixels).save(tmp_path / f"{index}.png")
    (tmp_path / "notes.txt").write_text("no image")
    data = open_validation(tmp_path)
    assert (data.count, data.labels) == (6, None)
    np.testing.assert_array_equal(np.stack(list(data.images())), IMAGES)


def test_subfolders_are_classes_by_name_or_by_number(tmp_path: Path) -> None:
    image = pytest.importorskip("PIL.Image")
    for name, pixels in zip(("cat", "dog", "2"), IMAGES, strict=False):
        (tmp_path / name).mkdir()
        image.fromarray(pixels).save(tmp_path / name / "a.png")
    data = open_validation(tmp_path, ["dog", "cat", "cow"])
    assert data.labels is not None
    assert data.labels.tolist() == [2, 1, 0]  # in the order of the names: 2, cat, dog
    with pytest.raises(UnknownName, match="'cat'"):
        open_validation(tmp_path, ["dog"])


@pytest.mark.parametrize(("arrays", "words"), [
    ({"pictures": IMAGES}, "no array 'images'; it has: pictures"),
    ({"images": IMAGES.astype(np.float32)}, "float32"),
    ({"images": IMAGES[..., :1]}, r"\[6, 4, 5, 1\]"),
    ({"images": IMAGES, "labels": np.zeros(5, np.int64)}, "labels"),
    ({"images": IMAGES, "labels": np.zeros(6)}, "float64"),
    ({"images": IMAGES[:0]}, "no images"),
])
def test_arrays_that_do_not_fit_are_refused(tmp_path: Path, arrays: dict[str, np.ndarray], words: str) -> None:
    np.savez(tmp_path / "v.npz", **arrays)  # type: ignore[arg-type]  # the stub takes the names for options
    with pytest.raises(BadInput, match=words):
        open_validation(tmp_path / "v.npz")


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 cut", b"not a zip", b"\x93NUMPY\x01\x00"])
def test_files_that_are_no_npz_are_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "v.npz").write_bytes(content)
    with pytest.raises(BadInput):
        open_validation(tmp_path / "v.npz")
    with pytest.raises(BadInput, match="no file or folder"):
        open_validation(tmp_path / "gone.npz")


def test_a_single_npy_array_is_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "v.npy", IMAGES)
    with pytest.raises(BadInput):
        open_validation(tmp_path / "v.npy")
