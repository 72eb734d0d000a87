from __future__ import annotations

import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from edgekit.artifacts import TensorSpec
from edgekit.converters.quantize import open_samples
from edgekit.errors import BadInput, BadRecipe, UnknownName
from edgekit.recipe import Preprocess
from tests.quantize_models import images

IMAGE = TensorSpec("x", "float32", (1, 32, 32, 3), "nhwc")
PAIR = (TensorSpec("a", "float32", (1, 4)), TensorSpec("b", "int64", (1, 2)))


def test_arrays_in_onnx_order_are_stored_as_nhwc() -> None:
    data = images(5)
    samples = list(open_samples(data, [IMAGE]))
    assert len(samples) == 5
    np.testing.assert_array_equal(samples[3]["x"], data[3:4].transpose(0, 2, 3, 1))


def test_arrays_in_stored_order_stay() -> None:
    data = images(2).transpose(0, 2, 3, 1)
    np.testing.assert_array_equal(next(iter(open_samples({"x": data}, [IMAGE])))["x"], data[:1])


def test_npz_gives_what_the_arrays_give_and_labels(tmp_path: Path) -> None:
    data, path = images(6), tmp_path / "data.npz"
    np.savez(path, x=data, labels=np.arange(6))
    samples = open_samples(path, [IMAGE])
    direct = list(open_samples(data, [IMAGE]))
    for _ in range(2):  # any number of walks
        walked = list(samples)
        assert len(walked) == 6
        for ours, theirs in zip(walked, direct, strict=True):
            np.testing.assert_array_equal(ours["x"], theirs["x"])
    assert samples.labels is not None
    np.testing.assert_array_equal(samples.labels, np.arange(6))


def test_several_inputs_of_several_dtypes_from_compressed_npz(tmp_path: Path) -> None:
    path = tmp_path / "data.npz"
    np.savez_compressed(path, a=np.ones((3, 4), np.float64), b=np.arange(6, dtype=np.int32).reshape(3, 2))
    samples = list(open_samples(str(path), PAIR))
    assert samples[2]["a"].dtype == np.float32
    np.testing.assert_array_equal(samples[2]["b"], np.array([[4, 5]], np.int64))
    assert samples[2]["b"].dtype == np.int64


def test_a_fixed_batch_takes_so_many_entries_and_leaves_the_rest() -> None:
    spec = TensorSpec("x", "float32", (4, 2))
    samples = list(open_samples(np.arange(20, dtype=np.float32).reshape(10, 2), [spec]))
    assert [sample["x"].shape for sample in samples] == [(4, 2), (4, 2)]


def test_an_iterator_can_be_walked_twice() -> None:
    data = images(3)
    samples = open_samples((image for image in data), [IMAGE])
    first = [sample["x"] for sample in samples]
    second = [sample["x"] for sample in samples]
    assert len(first) == len(second) == 3
    for one, other in zip(first, second, strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_folder_of_images_goes_through_preprocessing(tmp_path: Path) -> None:
    pillow = pytest.importorskip("PIL.Image")
    for number in range(3):
        pillow.fromarray(np.full((40, 50, 3), 50 * number, np.uint8)).save(tmp_path / f"{number}.png")
    (tmp_path / "notes.txt").write_text("not an image")
    recipe = Preprocess(mean=(100.0, 100.0, 100.0), std=(50.0, 50.0, 50.0))
    samples = list(open_samples(tmp_path, [IMAGE], recipe))
    assert [float(sample["x"].mean()) for sample in samples] == pytest.approx([-2.0, -1.0, 0.0])
    assert samples[0]["x"].shape == (1, 32, 32, 3)


def test_memory_does_not_grow_with_the_number_of_samples(tmp_path: Path) -> None:
    def peak(count: int) -> int:
        path = tmp_path / f"{count}.npz"
        np.savez(path, x=np.zeros((count, 3, 32, 32), np.float32))
        tracemalloc.start()
        assert sum(1 for _ in open_samples(path, [IMAGE])) == count
        found = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return found

    assert peak(1000) < peak(20) + 100_000  # one sample takes 12 kB, 1000 of them 12 MB


@pytest.mark.parametrize(
    ("source", "error", "words"),
    [
        (np.zeros((0, 3, 32, 32), np.float32), BadInput, "no sample"),
        ([], BadInput, "no sample"),
        (np.zeros((2, 3, 30, 32), np.float32), BadInput, "shape"),
        (np.zeros((2, 3, 32), np.float32), BadInput, "shape"),
        (np.full((2, 3, 32, 32), np.nan, np.float32), BadInput, "NaN"),
        (np.zeros((2, 3, 32, 32), np.uint8), BadInput, "preprocessing"),
        (np.zeros((2, 3, 32, 32), np.complex64), BadInput, "complex64"),
        ({"y": np.zeros((2, 3, 32, 32), np.float32)}, UnknownName, "'y'"),
        ({"x": images(3), "labels": np.zeros((2,), np.int64)}, BadInput, "2 labels for 3"),
        ({"x": images(3), "labels": np.zeros((3,), np.float32)}, BadInput, "integer"),
        (3, BadRecipe, "calibration data"),
        ("nowhere.npz", BadInput, "nowhere.npz"),
    ],
)
def test_what_does_not_fit_is_named(source: object, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        list(open_samples(source, [IMAGE]))


def test_damaged_files_are_named(tmp_path: Path) -> None:
    whole = tmp_path / "whole.npy"
    np.save(whole, images(4))
    cut = tmp_path / "cut.npy"
    cut.write_bytes(whole.read_bytes()[:-100])
    noise = tmp_path / "noise.npz"
    noise.write_bytes(b"no archive")
    objects = tmp_path / "objects.npy"
    np.save(objects, np.array([{}], object), allow_pickle=True)
    for path in (cut, noise, objects):
        with pytest.raises(BadInput, match=path.name):
            list(open_samples(path, [IMAGE]))


def test_different_numbers_of_samples_are_refused() -> None:
    with pytest.raises(BadInput, match="different numbers"):
        open_samples({"a": np.zeros((3, 4)), "b": np.zeros((2, 2), np.int64)}, PAIR)


def test_random_needs_fixed_shapes() -> None:
    spec = TensorSpec("x", "float32", (1, -1, 8))
    with pytest.raises(BadInput, match="dynamic"):
        open_samples("random", [spec])
    samples = open_samples("random", [spec], shapes={"x": (1, 5, 8)})
    assert samples.random
    assert next(iter(samples))["x"].shape == (1, 5, 8)
