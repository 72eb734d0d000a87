"""The parts of sparse continual learning, each by itself, and the FLOPs meter against the paper's figures."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from edgekit.errors import BadInput, BadRecipe, UnknownName
from edgekit.train.continual.buffer import Reservoir
from edgekit.train.continual.channels import carve, put_back
from edgekit.train.continual.evaluate import average_accuracy, forgetting, only_classes
from edgekit.train.continual.flops import FlopsMeter, count_macs
from edgekit.train.continual.gradients import GradientMask
from edgekit.train.continual.masks import WeightMasks, drop_least, grow_random, target_density
from edgekit.train.continual.nets import Resizable, SmallCnn, SmallResNet, make_network, prunable_weights
from edgekit.train.continual.recipe import ContinualRecipe, GradientRecipe, MaskRecipe, RemovalRecipe
from edgekit.train.continual.removal import DataRemoval
from edgekit.train.continual.streams import Labelled, folder_stream, npz_stream, split_stream


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_every_sample_is_in_the_reservoir_with_the_same_chance() -> None:
    counts = np.zeros(60)
    for seed in range(150):
        buffer = Reservoir(12, (1, 1, 1), 2, generator(seed))
        for start in range(0, 60, 20):
            labels = torch.arange(start, start + 20)
            buffer.add(labels.to(torch.uint8).view(-1, 1, 1, 1), labels, torch.stack([labels, -labels], 1).float())
        replay = buffer.draw(12)
        assert len(set(replay.labels.tolist())) == 12, "a place holds one sample"
        assert torch.equal(replay.images.flatten().long(), replay.labels)
        assert torch.equal(replay.logits[:, 1], -replay.labels.float())
        counts[replay.labels.numpy()] += 1
    # 150 draws with chance 1/5: 30 +- 4.9 each; by thirds 600 +- 22
    assert counts.min() > 10
    assert counts.max() < 52
    assert np.abs(counts.reshape(3, 20).sum(1) - 600).max() < 80


def test_an_empty_buffer_gives_nothing() -> None:
    with pytest.raises(BadInput, match="empty buffer"):
        Reservoir(4, (1, 2, 2), 2, generator()).draw(1)


def test_the_least_are_dropped_and_the_dead_are_grown() -> None:
    mask = torch.tensor([[True, True, False], [True, True, False]])
    score = torch.tensor([[4.0, 1.0, 9.0], [2.0, 3.0, 9.0]])
    kept = drop_least(mask, score, 2)
    assert kept.tolist() == [[True, False, False], [False, True, False]]
    grown = grow_random(kept, 5, generator())
    assert int(grown.sum()) == 5
    assert bool(grown[kept].all())


def test_the_schedule_of_the_density() -> None:
    recipe = MaskRecipe(sparsity=0.75, every=5, p_intra=0.01, p_inter=0.02, until=0.9)
    steps = {epoch: target_density(recipe, 1, epoch, 50) for epoch in range(50)}
    assert steps[0] == (None, 0.27)
    assert [epoch for epoch, step in steps.items() if step] == [0, 5, 10, 15, 20, 25, 30, 35, 40, 45]
    assert steps[5] == (0.24, 0.25)
    assert target_density(recipe, 0, 0, 50) is None, "the first task begins with the start mask"
    assert target_density(recipe, 1, 2, 3) == (0.24, 0.25), "what a short task began with is gone in its last epoch"
    early = MaskRecipe(sparsity=0.75, until=0.1)
    assert [target_density(early, task, 5, 10) for task in (0, 1)] == [None, (0.25, 0.25)]
    assert target_density(recipe, 1, 0, 1) is None
    assert target_density(MaskRecipe(dynamic=False), 1, 5, 50) is None


def test_masks_keep_their_count_and_what_is_masked_is_zero() -> None:
    torch.manual_seed(0)
    network = SmallCnn(side=8)
    norms = {name: float(network.get_parameter(name).detach().norm()) for name in network.prunable}
    masks = WeightMasks(network, network.prunable, MaskRecipe(every=1, p_intra=0.05, p_inter=0.1), 4, generator())
    for name in network.prunable:
        assert float(network.get_parameter(name).detach().norm()) == pytest.approx(norms[name], rel=1e-5)
    before = {name: mask.clone() for name, mask in masks.alive.items()}

    def importance(net: nn.Module) -> dict[str, torch.Tensor]:
        return {name: value.detach().abs() for name, value in net.named_parameters()}

    densities = []
    for epoch in range(4):
        masks.begin_epoch(1, epoch, importance)
        with torch.no_grad():
            for value in network.parameters():
                value.add_(0.1)  # as momentum would
        masks.after_step()
        for name, mask in masks.alive.items():
            assert bool((network.get_parameter(name)[~mask] == 0).all())
        densities.append([float(mask.float().mean()) for mask in masks.alive.values()])
    assert np.allclose(densities, [[0.2] * 2, [0.1] * 2, [0.1] * 2, [0.1] * 2], atol=0.001)
    assert all(not torch.equal(before[name], mask) for name, mask in masks.alive.items())


def test_easy_samples_leave_first_and_those_never_right_stay() -> None:
    removal = DataRemoval(4, RemovalRecipe(share=0.5, every=2, rounds=2))
    everyone = torch.arange(4)
    for right in ([1, 1, 0, 1], [1, 0, 0, 1], [1, 1, 0, 0]):
        removal.observe(everyone, torch.tensor(right, dtype=torch.bool))
    assert removal.events().tolist()[:2] == [0, 1]
    assert removal.end_epoch(0) == 0
    assert removal.end_epoch(1) == 1
    assert removal.kept.tolist() == [1, 2, 3]
    assert int(removal.events().min()) > 4, "counting starts anew"
    removal.observe(removal.kept, torch.tensor([True, False, True]))
    assert removal.end_epoch(3) == 1
    assert removal.kept.tolist() == [2, 3], "of equals the earlier leaves, and the one never right stays"
    assert removal.end_epoch(5) == 0, "all rounds are done"


def test_only_the_largest_gradients_of_live_weights_are_left() -> None:
    layer = nn.Linear(4, 1)
    mask = GradientMask(GradientRecipe(keep=0.5, refresh_steps=2), ("weight",))
    alive = {"weight": torch.tensor([[True, True, False, False]])}

    def step(values: list[float]) -> tuple[bool, list[float]]:
        layer.weight.grad = torch.tensor([values])
        chosen = mask.apply(layer, alive)
        return chosen, layer.weight.grad.tolist()[0]

    assert step([1.0, -2.0, 9.0, 0.0]) == (True, [0.0, -2.0, 0.0, 0.0])
    assert step([5.0, 1.0, 9.0, 0.0]) == (False, [0.0, 1.0, 0.0, 0.0])
    assert step([5.0, 1.0, 9.0, 0.0]) == (True, [5.0, 0.0, 0.0, 0.0])


def _protocol(sparsity: float, replays: int) -> FlopsMeter:
    """SparCL's Split-CIFAR-10: 5 tasks of 10,000, 50 epochs, ResNet-18, 30 % of the data removed in 4 rounds."""
    layers = count_macs(RESNET18, (3, 32, 32))
    density = 1 - sparsity
    meter = FlopsMeter()
    meter.set_network(layers, dict.fromkeys(prunable_weights(RESNET18), density), 0.8 if sparsity else 1.0)
    for task in range(5):
        removal = DataRemoval(10_000, RemovalRecipe() if sparsity else None)
        for epoch in range(50):
            meter.step(len(removal.kept), replays * len(removal.kept))
            removal.end_epoch(epoch)
        assert len(removal.kept) == (7_000 if sparsity else 10_000), task
    return meter


RESNET18 = SmallResNet(stages=(64, 128, 256, 512), blocks=2)


@pytest.mark.parametrize(("sparsity", "replays", "paper", "full"), [
    (0, 0, 8.3, 8.3), (0, 1, 11.1, 16.6), (0, 2, 13.9, 24.9), (0.75, 2, 2.5, None), (0.9, 2, 1.1, None),
    (0.95, 2, 0.6, None),
])
def test_the_meter_gives_the_papers_figures(sparsity: float, replays: int, paper: float, full: float | None) -> None:
    meter = _protocol(sparsity, replays)
    assert meter.paper / 1e15 == pytest.approx(paper, rel=0.15 if sparsity else 0.05)
    if full is not None:
        assert meter.full / 1e15 == pytest.approx(full, rel=0.05)


def test_multiply_adds_are_those_of_the_layers() -> None:
    macs = dict(count_macs(SmallCnn(), (1, 28, 28)))
    assert macs == {"conv1.weight": 9 * 16 * 784, "conv2.weight": 9 * 16 * 32 * 196, "fc1.weight": 1568 * 128,
                    "fc2.weight": 1280}
    assert sum(macs for _, macs in count_macs(RESNET18, (3, 32, 32))) == pytest.approx(0.555e9, rel=0.01)


def _masked_outputs(network: Resizable, alive: dict[str, torch.Tensor], x: torch.Tensor) -> torch.Tensor:
    """What the wide network gives when the channels that are not alive are zeroed where they are consumed."""
    state = {name: value.clone() for name, value in network.state_dict().items()}
    for name, axes in network.axes.items():
        for axis in axes:
            if axis.dim == 1:
                dead = ~alive[axis.group].repeat_interleave(axis.block)
                state[name][:, dead] = 0
    wide = network.rebuilt(network.widths)
    wide.load_state_dict(state)
    outputs: torch.Tensor = wide.eval()(x)
    return outputs


@pytest.mark.parametrize("network", [SmallCnn(side=12), SmallResNet(stages=(8, 12), blocks=2, stride=2)])
def test_the_narrow_network_computes_what_the_masked_one_does(network: Resizable) -> None:
    torch.manual_seed(1)
    for name, value in network.state_dict().items():
        if value.dtype.is_floating_point:
            value.copy_(torch.rand(value.shape) + 0.1 if "var" in name else torch.randn(value.shape) * 0.3)
    alive = {name: torch.rand(width, generator=generator(3)) < 0.6 for name, width in network.widths.items()}
    state = {name: value.clone() for name, value in network.state_dict().items()}
    narrow = carve(network, state, alive).eval()
    x = torch.randn(3, 1 if isinstance(network, SmallCnn) else 3, 12, 12)
    torch.testing.assert_close(narrow(x), _masked_outputs(network, alive, x), rtol=1e-4, atol=1e-4)
    assert sum(each.numel() for each in narrow.parameters()) < 0.6 * sum(each.numel() for each in network.parameters())
    # what is put back fills its own places only
    changed = {name: torch.zeros_like(value) for name, value in narrow.state_dict().items()}
    put_back(state, network.axes, alive, changed)
    again = carve(network, state, alive)
    assert all(not value.any() for value in again.state_dict().values())
    first = next(name for name in network.axes if name.endswith("weight"))
    dead = ~alive[network.axes[first][0].group]
    assert torch.equal(state[first][dead], network.state_dict()[first][dead])


def test_accuracies_over_time() -> None:
    matrix = [(0.9,), (0.7, 0.8), (0.6, 0.85, 0.9)]
    assert average_accuracy(matrix) == pytest.approx((0.6 + 0.85 + 0.9) / 3)
    assert forgetting(matrix) == pytest.approx((0.3 - 0.05) / 2)
    assert forgetting(matrix[:1]) == 0
    assert only_classes(torch.tensor([[5.0, 1.0, 2.0]]), (1, 2)).argmax(1).tolist() == [2]


def test_streams(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    data = Labelled(random.integers(0, 256, (40, 6, 6, 3)).astype(np.uint8), np.arange(40) % 4)
    stream = split_stream(data, data, 2)
    assert [task.classes for task in stream.tasks] == [(0, 1), (2, 3)]
    assert stream.image == (3, 6, 6)
    assert torch.equal(stream.tasks[1].train_images[0].permute(1, 2, 0), torch.from_numpy(data.images[2]))
    np.savez(tmp_path / "x.npz", train_images=data.images, train_labels=data.labels, val_images=data.images,
             val_labels=data.labels)
    assert torch.equal(npz_stream(tmp_path / "x.npz", 2).tasks[0].test_labels, stream.tasks[0].test_labels)
    with pytest.raises(BadRecipe, match="Divisors of 4"):
        split_stream(data, data, 3)
    np.savez(tmp_path / "y.npz", train_images=data.images)
    with pytest.raises(BadInput, match="needs train_labels"):
        npz_stream(tmp_path / "y.npz", 2)


def test_a_folder_of_folders(tmp_path: Path) -> None:
    from PIL import Image

    for name, value in (("cat", 10), ("ant", 200)):
        (tmp_path / name).mkdir()
        for index in range(5):
            Image.new("RGB", (9, 7), (value, index, 0)).save(tmp_path / name / f"{index}.png")
    stream = folder_stream(tmp_path, 2, 8)
    assert stream.names == ("ant", "cat")
    assert [len(task.train_labels) for task in stream.tasks] == [4, 4]
    assert stream.tasks[0].test_images[0, :2, 0, 0].tolist() == [200, 4]
    with pytest.raises(BadInput, match="no folder for each class"):
        folder_stream(tmp_path / "cat", 1, 8)


def test_refusals() -> None:
    with pytest.raises(BadRecipe, match="p_intra is less"):
        MaskRecipe(sparsity=0.99, p_intra=0.02)
    with pytest.raises(BadRecipe, match="needs a buffer"):
        ContinualRecipe(buffer=0)
    with pytest.raises(UnknownName, match="Known: cnn, resnet"):
        make_network("vgg", (1, 28, 28), 10)
