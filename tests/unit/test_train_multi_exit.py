"""Exits on a backbone, their losses, and the loop that trains them."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from edgekit.errors import BadInput, BadRecipe, UnknownName
from edgekit.train.hints import Hinted
from edgekit.train.loop import Progress, TrainRecipe, fit
from edgekit.train.losses import Distillation, joint, self_distilled
from edgekit.train.multi_exit import ExitRecipe, MultiExit, cut_points, suggest_exits

IMAGE = torch.zeros(2, 3, 16, 16)


def block(inputs: int, outputs: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU(inplace=True))


def backbone() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        block(3, 8), block(8, 16, 2), block(16, 16), block(16, 32, 2), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
        nn.Linear(32, 5))


class Tokens(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Linear(6, 12)
        self.mix = nn.Linear(12, 12)
        self.out = nn.Linear(12, 5)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.out(self.mix(self.embed(x)).mean(dim=1))
        return logits


# -- exits -----------------------------------------------------------------------------------------------------------


def test_cut_points_tell_the_share_of_work() -> None:
    points = {point.name: point.share for point in cut_points(backbone(), IMAGE)}
    work = [16 * 16 * 27 * 8, 8 * 8 * 72 * 16, 8 * 8 * 144 * 16, 4 * 4 * 144 * 32, 160]
    assert points["0"] == pytest.approx(work[0] / sum(work))
    assert points["2"] == pytest.approx(sum(work[:3]) / sum(work))
    assert list(points.values()) == sorted(points.values())


def test_suggested_exits_are_evenly_spaced_and_outermost() -> None:
    assert suggest_exits(backbone(), IMAGE, 2, first=0.2) == ("0", "2")  # their shares: 0.16, 0.37, 0.79, 1.00
    assert all("." not in name for name in suggest_exits(backbone(), IMAGE, 3))
    with pytest.raises(BadRecipe, match="Ask for fewer"):
        suggest_exits(backbone(), IMAGE, 9)


@pytest.mark.parametrize("carry", [0.0, 0.5])
def test_running_logits(carry: float) -> None:
    net = backbone()
    network = MultiExit(net, ["0", "2"], IMAGE, ExitRecipe(carry=carry, head_width=4)).eval()
    image = torch.randn(4, 3, 16, 16)
    with torch.no_grad():
        first, second, last = network(image)
        trunk = [net[:1](image), net[:3](image)]
        own = [head(each) for head, each in zip(network.heads, trunk, strict=True)]
        expected = own[1] + carry * own[0]
        torch.testing.assert_close(first, own[0])
        torch.testing.assert_close(second, expected)
        torch.testing.assert_close(last, net(image) + carry * expected)


def test_carried_logits_teach_nothing_backwards() -> None:
    network = MultiExit(backbone(), ["2"], IMAGE, ExitRecipe(carry=0.5)).train()
    network(torch.randn(4, 3, 16, 16))[1].sum().backward()
    assert all(parameter.grad is None for parameter in network.heads.parameters())


def test_rescaling_gives_the_trunk_the_mean_gradient() -> None:
    image, grads = torch.randn(4, 3, 16, 16), []
    for rescale in (False, True):
        net = backbone()
        network = MultiExit(net, ["3"], IMAGE, ExitRecipe(rescale=rescale)).train()
        for parameter in network.heads.parameters():  # an exit like the last one
            nn.init.zeros_(parameter)
        network(image)[1].sum().backward()
        gradient = next(net.parameters()).grad
        assert gradient is not None
        grads.append(gradient.clone())
    torch.testing.assert_close(grads[1], grads[0] / 2)


def test_exits_on_tokens() -> None:
    network = MultiExit(Tokens(), ["embed"], torch.zeros(2, 7, 6), ExitRecipe(head_width=8)).eval()
    assert [tuple(each.shape) for each in network(torch.zeros(3, 7, 6))] == [(3, 5), (3, 5)]


def test_mistakes_are_named() -> None:
    with pytest.raises(UnknownName, match="'nine'"):
        MultiExit(backbone(), ["nine"], IMAGE, ExitRecipe())
    with pytest.raises(BadRecipe, match="order"):
        MultiExit(backbone(), ["2", "0"], IMAGE, ExitRecipe())
    with pytest.raises(BadRecipe, match="carry"):
        MultiExit(backbone(), ["0"], IMAGE, ExitRecipe(carry=2))
    with pytest.raises(BadRecipe, match="logits"):
        MultiExit(block(3, 4), ["0"], IMAGE, ExitRecipe())
    with pytest.raises(BadRecipe, match="shape"):
        MultiExit(backbone(), ["5"], IMAGE, ExitRecipe())


def test_training_leaves_no_trace_in_statistics_of_counting() -> None:
    net = backbone()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    MultiExit(net, suggest_exits(net, torch.randn(2, 3, 16, 16), 2), torch.randn(2, 3, 16, 16), ExitRecipe())
    for name, value in before.items():
        torch.testing.assert_close(net.state_dict()[name], value)


# -- losses ----------------------------------------------------------------------------------------------------------


def test_joint_is_the_weighted_mean() -> None:
    logits, target = [torch.randn(6, 5), torch.randn(6, 5)], torch.arange(6) % 5
    each = [float(nn.functional.cross_entropy(one, target)) for one in logits]
    assert float(joint(logits, target)) == pytest.approx(sum(each) / 2)
    assert float(joint(logits, target, [1, 3])) == pytest.approx((each[0] + 3 * each[1]) / 4)
    with pytest.raises(BadInput, match="2 exits"):
        joint(logits, target, [1])


def test_the_teacher_is_not_drawn_to_its_pupils() -> None:
    pupil, teacher = torch.randn(6, 5, requires_grad=True), torch.randn(6, 5, requires_grad=True)
    target = torch.arange(6) % 5
    torch.autograd.backward(self_distilled([pupil, teacher], target, Distillation(alpha=1.0)))
    (alone,) = torch.autograd.grad(nn.functional.cross_entropy(teacher, target) / 2, teacher)
    torch.testing.assert_close(teacher.grad, alone)
    same = torch.randn(6, 5)
    distilled = self_distilled([same, same], target, Distillation(alpha=1.0))
    assert float(distilled) == pytest.approx(float(nn.functional.cross_entropy(same, target)) / 2, abs=1e-6)


# -- the loop --------------------------------------------------------------------------------------------------------


class Blobs:
    """Noisy 16x16 images in three colours, which are the classes; others in each epoch."""

    def __init__(self, epoch: int) -> None:
        random = np.random.default_rng(epoch)
        self.target = random.integers(0, 3, 64)
        image = random.normal(0, 0.3, (64, 3, 16, 16))
        image[np.arange(64), self.target] += 1
        self.image = torch.tensor(image, dtype=torch.float32)

    def __len__(self) -> int:
        return 4

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        for start in range(0, 64, 16):
            yield self.image[start : start + 16], torch.tensor(self.target[start : start + 16])


def step_loss(network: nn.Module, image: Tensor, target: Tensor) -> Tensor:
    return joint(network(image), target)


def make() -> MultiExit:
    return MultiExit(backbone(), ["0", "2"], IMAGE, ExitRecipe())


def test_every_exit_learns() -> None:
    network, seen = make(), list[Progress]()
    fit(network, Blobs, step_loss, TrainRecipe(epochs=6, learning_rate=0.1), on_epoch=seen.append)
    test = Blobs(99)
    assert not network.training
    for logits in network(test.image):
        assert float((logits.argmax(1).numpy() == test.target).mean()) > 0.9
    assert seen[-1].epoch == 6
    assert seen[-1].loss < seen[0].loss


@pytest.mark.parametrize("average", [0.0, 0.9])
def test_a_killed_run_ends_with_the_same_weights(average: float, tmp_path: Path) -> None:
    recipe = TrainRecipe(epochs=3, learning_rate=0.05, average=average, clip=1.0, optimizer="adamw")
    whole = make()
    fit(whole, Blobs, step_loss, recipe)

    def die(progress: Progress) -> None:
        if progress.epoch == 3:
            raise KeyboardInterrupt

    checkpoint = tmp_path / "run.pt"
    with pytest.raises(KeyboardInterrupt):
        fit(make(), Blobs, step_loss, recipe, checkpoint, die)
    resumed = make()
    fit(resumed, Blobs, step_loss, recipe, checkpoint)
    for name, value in whole.state_dict().items():
        assert torch.equal(resumed.state_dict()[name], value), name


def test_a_run_that_cannot_go_on_says_so(tmp_path: Path) -> None:
    checkpoint = tmp_path / "run.pt"
    fit(make(), Blobs, step_loss, TrainRecipe(epochs=1), checkpoint)
    with pytest.raises(BadRecipe, match="another recipe"):
        fit(make(), Blobs, step_loss, TrainRecipe(epochs=2), checkpoint)
    with pytest.raises(BadRecipe, match="learning rate"):
        fit(make(), Blobs, lambda network, x, _: network(x)[0].sum() * float("nan"), TrainRecipe(epochs=1))
    with pytest.raises(BadRecipe, match="no parameters"):
        fit(make().requires_grad_(False), Blobs, step_loss, TrainRecipe(epochs=1))
    with pytest.raises(BadRecipe, match="at least 1 epoch"):
        TrainRecipe(epochs=0)
    assert io.BytesIO(checkpoint.read_bytes()).read(2) == b"PK"


# -- hints -----------------------------------------------------------------------------------------------------------


def test_hints_draw_the_exits_and_not_the_deepest_features() -> None:
    network = MultiExit(backbone(), ("0", "2"), IMAGE, ExitRecipe())
    hinted = Hinted(network, "3", IMAGE)
    with pytest.raises(BadInput, match="Call the network"):
        hinted.distance(1.0)
    hinted(torch.randn(4, 3, 16, 16))
    value = hinted.distance(0.5)
    value.backward()  # type: ignore[no-untyped-call]
    trunk = dict(network.backbone.named_parameters())
    assert float(value.detach()) > 0
    assert all(each.grad is not None for each in hinted.adapters.parameters())
    assert trunk["2.0.weight"].grad is not None
    assert trunk["3.0.weight"].grad is None
    with pytest.raises(UnknownName):
        Hinted(network, "9", IMAGE)


def test_heads_learn_on_a_frozen_backbone() -> None:
    trunk = backbone().requires_grad_(False)
    network = MultiExit(trunk, ("0", "2"), IMAGE, ExitRecipe(head_width=4))
    before = {name: each.clone() for name, each in trunk.state_dict().items()}
    heads = [each.clone() for each in network.heads.parameters()]

    def batches(_: int) -> list[tuple[Tensor, Tensor]]:
        return [(torch.randn(8, 3, 16, 16), torch.arange(8) % 5)]

    fit(network, batches, lambda model, images, labels: joint(model(images), labels), TrainRecipe(epochs=2))
    assert all(torch.equal(each, before[name]) for name, each in trunk.state_dict().items())
    assert not any(torch.equal(*pair) for pair in zip(heads, network.heads.parameters(), strict=True))
