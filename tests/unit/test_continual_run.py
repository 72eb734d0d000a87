"""Whole runs: what they learn, and that a killed one ends with the same weights."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import time
from pathlib import Path

import msgspec
import numpy as np
import pytest
import torch

from edgekit.errors import BadInput, BadRecipe, UnknownName
from edgekit.train.continual.channels import ChannelMasks
from edgekit.train.continual.learner import EpochNote, Learner
from edgekit.train.continual.nets import Resizable, SmallCnn, SmallResNet
from edgekit.train.continual.picture import draw_matrix
from edgekit.train.continual.planned import planned_flops
from edgekit.train.continual.recipe import ContinualRecipe, GradientRecipe, MaskRecipe, RemovalRecipe
from edgekit.train.continual.run import ContinualConfig, DataConfig, read_config
from edgekit.train.continual.streams import Labelled, Stream, split_stream

SPARSE = ContinualRecipe(
    buffer=24, epochs=3, batch=16, replay_batch=8, learning_rate=0.1, augment="shift_flip",
    masks=MaskRecipe(sparsity=0.7, every=1, p_intra=0.05, p_inter=0.05, samples=16),
    removal=RemovalRecipe(every=1, rounds=2), gradients=GradientRecipe(refresh_steps=3))


def patterns(side: int = 8, channels: int = 1) -> Stream:
    """Four classes, each a fixed pattern with noise: easy to learn, easy to forget."""
    rng = np.random.default_rng(5)
    shapes = rng.integers(0, 2, (4, side, side, channels)) * 160
    labels = np.repeat(np.arange(4), 24)
    images = np.clip(shapes[labels] + rng.integers(0, 96, (96, side, side, channels)), 0, 255).astype(np.uint8)
    odd = np.arange(96) % 2 == 1
    return split_stream(Labelled(images[~odd], labels[~odd]), Labelled(images[odd], labels[odd]), 2)


def network(kind: str) -> Resizable:
    torch.manual_seed(0)
    return SmallCnn(side=8, classes=4) if kind == "cnn" else SmallResNet(1, 4, (8, 12))


def recipe(unit: str) -> ContinualRecipe:
    assert SPARSE.masks is not None
    masks = msgspec.structs.replace(SPARSE.masks, unit=unit)
    return msgspec.structs.replace(SPARSE, masks=masks, gradients=SPARSE.gradients if unit == "weights" else None)


class Killed(Exception):
    pass


@pytest.mark.parametrize(("kind", "unit", "at"), [
    ("cnn", "weights", 1), pytest.param("resnet", "channels", 4, marks=pytest.mark.slow)])
def test_a_run_that_goes_on_ends_with_the_same_weights(kind: str, unit: str, at: int, tmp_path: Path) -> None:
    stream, path = patterns(), tmp_path / "c.pt"
    whole = Learner(network(kind), stream, recipe(unit))
    outcome = whole.run()
    first = Learner(network(kind), stream, recipe(unit))
    seen: list[EpochNote] = []

    def kill(note: EpochNote) -> None:
        seen.append(note)
        if len(seen) == at + 1:
            raise Killed

    with pytest.raises(Killed):
        first.run(path, kill)
    torch.manual_seed(99)
    second = Learner(network(kind), stream, recipe(unit))
    again = second.run(path)
    assert again == outcome
    assert second.notes == whole.notes
    expected = whole.state.whole()
    assert all(torch.equal(value, expected[name]) for name, value in second.state.whole().items())
    with pytest.raises(BadRecipe, match="another recipe"):
        Learner(network(kind), stream, msgspec.structs.replace(recipe(unit), beta=1.0)).run(path)
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(BadInput, match="is damaged"):
        Learner(network(kind), stream, recipe(unit)).run(path)


@pytest.mark.parametrize("steps", [None, 5])
def test_what_a_run_costs_is_known_before(steps: int | None) -> None:
    stream, wanted = patterns(), msgspec.structs.replace(SPARSE, steps=steps)
    planned = planned_flops(network("cnn"), stream.image, wanted, [len(task.train_labels) for task in stream.tasks])
    outcome = Learner(network("cnn"), stream, wanted).run()
    assert planned.full == pytest.approx(outcome.full_flops, rel=1e-6)
    assert planned.paper == pytest.approx(outcome.paper_flops, rel=1e-6)


@pytest.mark.slow
def test_replay_keeps_what_training_without_it_forgets() -> None:
    plain = ContinualRecipe(epochs=12, batch=8, buffer=24, learning_rate=0.1, beta=1.0)
    matrices = {}
    for base in ("none", "er", "derpp"):
        learner = Learner(network("cnn"), patterns(), msgspec.structs.replace(
            plain, base=base, task_classes_only=False))
        matrices[base] = learner.run().rows[-1].class_incremental
    assert matrices["none"][0] < 0.3
    assert matrices["er"][0] > 0.7
    assert matrices["derpp"][0] > 0.7


def test_masked_channels_are_not_there_and_come_back_as_they_were() -> None:
    wide = network("resnet")
    stored = {name: value.clone() for name, value in wide.state_dict().items()}
    masks = MaskRecipe(sparsity=0.5, unit="channels", every=1, p_intra=0.25, p_inter=0.25, rescale=False)
    state = ChannelMasks(wide, masks, 4, torch.Generator().manual_seed(0))
    small = state.network
    assert isinstance(small, Resizable)
    assert small.widths == {name: width // 2 for name, width in wide.widths.items()}
    with torch.no_grad():
        for value in small.parameters():
            value.add_(1.0)
    state.begin_epoch(1, 0, lambda _: {})
    assert isinstance(state.network, Resizable)
    assert state.network.widths["trunk0"] == 6
    now, axis = state.network.state_dict()["stem.weight"], stored["stem.weight"]
    untouched = [any(torch.equal(channel, old) for old in axis) for channel in now]
    moved = [any(torch.equal(channel, old + 1) for old in axis) for channel in now]
    assert (sum(untouched), sum(moved)) == (2, 4)


def test_live_channels_are_a_multiple_that_engines_like() -> None:
    masks = MaskRecipe(sparsity=0.375, unit="channels", multiple=8, every=1, p_intra=0.06, p_inter=0.06)
    state = ChannelMasks(SmallCnn(), masks, 4, torch.Generator().manual_seed(0))
    widths = []
    for task, epoch in ((0, 0), (1, 0), (1, 1)):
        state.begin_epoch(task, epoch, lambda net: dict(net.named_parameters()))
        assert isinstance(state.network, Resizable)
        widths.append(tuple(state.network.widths.values()))
    assert widths == [(8, 16, 80), (9, 18, 88), (8, 16, 80)], "a task begins with more, which it gives back"


def test_groups_of_channels_can_be_left_whole() -> None:
    masks = MaskRecipe(sparsity=0.5, unit="channels", multiple=8, whole=("fc1",), every=1, p_intra=0.06, p_inter=0.06)
    state = ChannelMasks(SmallCnn(), masks, 4, torch.Generator().manual_seed(0))
    for epoch in (0, 1):
        state.begin_epoch(1, epoch, lambda net: dict(net.named_parameters()))
    assert isinstance(state.network, Resizable)
    assert state.network.widths == {"conv1": 8, "conv2": 16, "fc1": 128}
    with pytest.raises(UnknownName, match="conv1, conv2, fc1"):
        ChannelMasks(SmallCnn(), msgspec.structs.replace(masks, whole=("fc2",)), 4, torch.Generator())


def test_a_clipped_step_is_no_longer_than_allowed() -> None:
    small = network("cnn")
    before = torch.cat([value.detach().flatten().clone() for value in small.parameters()])
    recipe = ContinualRecipe(epochs=1, batch=24, learning_rate=0.5, clip=0.01, buffer=8)
    learner = Learner(small, patterns(), recipe)
    learner.run()
    moved = torch.cat([value.detach().flatten() for value in small.parameters()]) - before
    steps = 2 * 2  # tasks of 48 samples
    assert 0 < float(moved.norm()) <= steps * 0.5 * 0.01 * 1.001
    with pytest.raises(BadRecipe, match="clipped to 0"):
        ContinualRecipe(clip=0.0)


def test_bfloat16_is_for_the_steps_only() -> None:
    losses = []
    for low in (False, True):
        learner = Learner(network("cnn"), patterns(), msgspec.structs.replace(SPARSE, epochs=1, bfloat16=low))
        learner.run()
        losses.append([note.loss for note in learner.notes])
        assert {value.dtype for value in learner.state.network.state_dict().values()} == {torch.float32}
    assert losses[0] != losses[1]
    assert losses[0] == pytest.approx(losses[1], rel=0.05)


def test_a_network_of_unknown_channels_cannot_lose_any() -> None:
    with pytest.raises(BadRecipe, match="knows its channels"):
        Learner(torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 4)), patterns(), recipe("channels"))


def test_a_file_describes_a_run(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("seeds: [3, 4]\ntrain:\n  epochs: 2\n  masks: {sparsity: 0.5, unit: channels}\n")
    config = read_config(tmp_path / "a.yaml")
    assert config.seeds == (3, 4)
    assert config.train.masks == MaskRecipe(sparsity=0.5, unit="channels")
    (tmp_path / "a.json").write_bytes(msgspec.json.encode(config))
    assert read_config(tmp_path / "a.json") == config == msgspec.convert(msgspec.to_builtins(config), ContinualConfig)
    (tmp_path / "b.yaml").write_text("train: {epoch: 2}")
    with pytest.raises(BadRecipe, match=r"unknown field `epoch` - at `\$.train`"):
        read_config(tmp_path / "b.yaml")
    with pytest.raises(BadRecipe, match="Could not read"):
        read_config(tmp_path / "none.yaml")


def test_the_picture_has_every_accuracy() -> None:
    picture = draw_matrix([(0.91,), (0.5, 0.875)], "<Accuracy>", "note")
    assert all(text in picture for text in (">91.0<", ">50.0<", ">87.5<", "after 2", "&lt;Accuracy&gt;"))


@pytest.mark.slow
def test_killed_at_random_moments_it_ends_with_the_same_weights(tmp_path: Path) -> None:
    stream = patterns()
    parts = {f"{part}_{what}": np.concatenate([getattr(task, f"{part}_{what}").numpy() for task in stream.tasks])
             for part in ("train", "test") for what in ("images", "labels")}
    arrays = {name: value.transpose(0, 2, 3, 1) if value.ndim == 4 else value for name, value in parts.items()}
    np.savez(tmp_path / "data.npz", **arrays)  # type: ignore[arg-type]
    config = ContinualConfig(data=DataConfig(source="npz", path=str(tmp_path / "data.npz"), tasks=2),
                             train=msgspec.structs.replace(SPARSE, epochs=60))
    (tmp_path / "run.json").write_bytes(msgspec.json.encode(config))

    def start(folder: str) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "edgekit", "train", "continual", "--config", "run.json", "-o", folder]
        return subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                                env={**os.environ, "OMP_NUM_THREADS": "1"})

    assert start("whole").wait() == 0
    log = tmp_path / "killed" / "seed0" / "log.jsonl"
    chance = random.Random()
    kills = []
    for third in range(3):
        process = start("killed")
        target = chance.randint(40 * third + 1, 40 * third + 30)
        while process.poll() is None and (not log.is_file() or log.read_text().count('"epoch"') < 2 * target):
            time.sleep(0.002)
        time.sleep(chance.random() * 0.03)
        process.kill()
        kills.append((target, process.wait()))
    assert [code for _, code in kills] == [-9] * 3, kills
    assert start("killed").wait() == 0
    for name in ("weights.pt", "log.jsonl"):
        assert (tmp_path / "whole/seed0" / name).read_bytes() == (tmp_path / "killed/seed0" / name).read_bytes(), kills
    states = [torch.load(tmp_path / run / "seed0/weights.pt", weights_only=True) for run in ("whole", "killed")]
    assert all(torch.equal(value, states[1][name]) for name, value in states[0].items())
    assert json.loads(log.read_text().splitlines()[-1])["kind"] == "task"
