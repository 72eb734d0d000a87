"""Private norms, the resolution predictor and its guards, and int8 weights that all resolutions share."""

from __future__ import annotations

import runpy
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from edgekit.adaptive import AdaptiveRecipe, build_adaptive, export_exits
from edgekit.bundle import Bundle
from edgekit.errors import BadInput, BadModel, BadRecipe
from edgekit.train.loop import TrainRecipe, fit
from edgekit.train.private_norms import PrivateNorm, deployed, make_norms_private, norms_of, use_norms
from edgekit.train.resolution import (
    DynamicResolution,
    Predictor,
    ResolutionRecipe,
    choice_loss,
    every_resolution,
    mix_of,
    predictor_loss,
    require_choice,
    resized,
)

SIDES = (8, 16)
IMAGE = torch.zeros(1, 1, 16, 16)


class Net(nn.Module):
    trunk: nn.Sequential

    def __init__(self) -> None:
        super().__init__()
        self.trunk = nn.Sequential(nn.Conv2d(1, 16, 3, 1, 1, bias=False), nn.BatchNorm2d(16), nn.ReLU(),
                                   nn.Conv2d(16, 16, 3, 1, 1, bias=False), nn.BatchNorm2d(16), nn.ReLU())
        self.classify = nn.Linear(16, 3)

    def forward(self, image: Tensor) -> Tensor:
        found: Tensor = self.classify(self.trunk(image).mean(dim=(2, 3)))
        return found


def network(trained: bool = False) -> Net:
    torch.manual_seed(0)
    made = Net()
    if trained:  # factors of both signs
        for norm in (made.trunk[1], made.trunk[4]):
            assert isinstance(norm, nn.BatchNorm2d)
            nn.init.normal_(norm.weight)
    return made


def dynamic(net: nn.Module | None = None) -> DynamicResolution:
    return DynamicResolution(net or network(), Predictor(1, 2, width=2), SIDES, IMAGE)


def spread(net: nn.Module) -> None:
    """Give each resolution norms of its own."""
    for norm in norms_of(net):
        for parameter in norm.parameters():
            nn.init.normal_(parameter)
        norm.variances.uniform_(0.5, 2)
        norm.means.normal_()


def test_private_norms_begin_as_the_norms_they_replace() -> None:
    net, images = network(trained=True).eval(), torch.randn(4, 1, 16, 16)
    before = net(images)
    assert make_norms_private(net, 3) == 2
    for option in range(3):
        use_norms(net, option)
        assert torch.allclose(net(images), before, atol=1e-5)
    with pytest.raises(BadRecipe, match="no BatchNorm2d"):
        make_norms_private(nn.Linear(2, 2), 2)


def test_only_the_norms_in_use_follow_the_images() -> None:
    norm = PrivateNorm(nn.BatchNorm2d(2), 2)
    norm.at = 1
    norm(torch.randn(8, 2, 4, 4) + 5).sum().backward()
    assert torch.equal(norm.means[0], torch.zeros(2))
    assert (norm.means[1] > 0.3).all()
    assert norm.factors[0].grad is None
    assert norm.factors[1].grad is not None


def integers(net: Net, option: int, grid: bool) -> list[Tensor]:
    """Folded as a converter does, then int8 with a scale for each output channel."""
    found = []
    with deployed(net, option, grid) as fixed, torch.no_grad():
        assert fixed is net
        for conv, norm in zip((net.trunk[0], net.trunk[3]), norms_of(net), strict=True):
            assert isinstance(conv, nn.Conv2d)
            factor = norm.sign * norm.factors[option].abs() / (norm.variances[option] + norm.eps).sqrt()
            folded = conv.weight * factor[:, None, None, None]
            scale = folded.abs().amax(dim=(1, 2, 3), keepdim=True) / 127
            found.append(torch.round(folded / scale).to(torch.int8))
    return found


def test_int8_weights_are_the_same_at_every_resolution() -> None:
    net = network(trained=True)
    make_norms_private(net, 2)
    spread(net)
    loose = [torch.cat([each.reshape(-1) for each in integers(net, option, grid=False)]) for option in range(2)]
    assert (loose[0] == loose[1]).float().mean() >= 0.995
    assert all(torch.equal(*pair) for pair in zip(integers(net, 0, True), integers(net, 1, True), strict=True))


def test_deployed_puts_everything_back() -> None:
    net = network()
    make_norms_private(net, 2)
    weight = net.trunk[0].weight
    assert isinstance(weight, Tensor)
    before = weight.detach().clone()
    with deployed(net, 1):
        assert not torch.equal(weight, before)
        assert all(norm.at == 1 for norm in norms_of(net))
    assert torch.equal(weight, before)
    assert net.training
    assert all(norm.at == 0 for norm in norms_of(net))


def test_each_image_is_answered_at_its_own_resolution() -> None:
    model = dynamic().eval()
    spread(model.network)
    images = torch.rand(6, 1, 16, 16)
    chosen = torch.tensor([0, 1, 1, 0, 1, 0])
    model.choose = lambda _: chosen  # type: ignore[method-assign,assignment]
    with torch.no_grad():
        got = model(images)
        for row, option in enumerate(chosen.tolist()):
            assert torch.allclose(got[row], model.at(images[row:row + 1], option)[0], atol=1e-5)
    assert model.costs[0] == pytest.approx(0.25, abs=1e-3)
    assert 0 < model.predictor_cost <= 0.03


def test_what_makes_no_sense_is_refused() -> None:
    with pytest.raises(BadRecipe, match="narrower"):
        DynamicResolution(network(), Predictor(1, 2, width=64), SIDES, IMAGE)
    with pytest.raises(BadRecipe, match="from small to large"):
        DynamicResolution(network(), Predictor(1, 2), (16, 8), IMAGE)
    with pytest.raises(BadRecipe, match="target"):
        ResolutionRecipe(target=0)
    with pytest.raises(BadRecipe, match="least_use"):
        ResolutionRecipe(least_use=0.6)
    with pytest.raises(BadInput, match="do not fit"):
        choice_loss(torch.zeros(4, 2), torch.zeros(3, 4, 5), torch.arange(4), (1, 2), ResolutionRecipe())


def test_the_loss_is_the_papers() -> None:
    scores = torch.zeros(4, 2)
    logits = torch.tensor([[[0.0, 0.0]], [[3.0, 0.0]]]).expand(2, 4, 2)
    labels = torch.zeros(4, dtype=torch.long)
    recipe = ResolutionRecipe(method="expected", eta=0.5, target=0.5, floor=0)
    right = (np.log(2) + np.log1p(np.exp(-3))) / 2
    over = (0.625 - 0.5) / 0.75
    found = float(choice_loss(scores, logits, labels, (0.25, 1.0), recipe))
    assert found == pytest.approx(right + 0.5 * over, rel=1e-5)


def test_a_collapse_is_seen() -> None:
    assert mix_of(torch.tensor([0, 0, 2, 2]), 3) == (0.5, 0, 0.5)
    assert require_choice((0.5, 0.5)) == pytest.approx(1)
    with pytest.raises(BadModel, match="next to no choice"):
        require_choice((0.016, 0.976, 0.008))


class Easy:
    """Half of the images show a coarse pattern, half one that is gone at 8 pixels; noise tells them apart."""

    def __init__(self, number: int) -> None:
        self._random = torch.Generator().manual_seed(number)

    def __len__(self) -> int:
        return 8

    def __iter__(self):  # type: ignore[no-untyped-def]
        for _ in range(len(self)):
            fine = torch.rand(64, generator=self._random) < 0.5
            yield torch.where(fine, 1.0, 0.0)[:, None, None, None].expand(64, 1, 16, 16), fine.long()


class Frozen(nn.Module):
    """Right at 16 pixels on every image; at 8 pixels only on dark ones. It has a norm and a weight like any other."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(1, 32, 3, 1, 1), nn.BatchNorm2d(32)
        self.requires_grad_(False)

    def forward(self, images: Tensor) -> Tensor:
        bright = images.mean(dim=(1, 2, 3)) + 0 * self.norm(self.conv(images)).sum(dim=(1, 2, 3))
        right = bright if images.shape[-1] == 16 else 0 * bright
        return torch.stack([4 - 8 * right, 8 * right - 4], dim=1)


@pytest.mark.parametrize("method", ["gumbel", "expected"])
def test_a_predictor_learns_on_a_frozen_network(method: str, tmp_path: Path) -> None:
    torch.manual_seed(1)
    model = DynamicResolution(Frozen(), Predictor(1, 2, width=2), SIDES, IMAGE)
    before = {name: value.clone() for name, value in model.network.state_dict().items()}
    recipe = ResolutionRecipe(method=method, target=0.6, price=0.5, rate=1.0)  # type: ignore[arg-type]
    fit(model, Easy, predictor_loss(recipe), TrainRecipe(epochs=12, learning_rate=0.3), tmp_path / "run.pt")
    assert all(torch.equal(value, before[name]) for name, value in model.network.state_dict().items())
    images, labels = next(iter(Easy(99)))
    assert require_choice(mix_of(model.choose(images), 2)) > 0.9
    assert (model(images).argmax(dim=1) == labels).all()
    with pytest.raises(BadRecipe, match="together"):
        predictor_loss(ResolutionRecipe(together=True))(model, images, labels)


def test_network_and_predictor_are_trained_together() -> None:
    model = dynamic()
    images, labels = torch.rand(12, 1, 16, 16), torch.randint(0, 3, (12,))
    every_resolution()(model, images, labels).backward()  # type: ignore[no-untyped-call]
    assert all(each.grad is None for each in model.predictor.parameters())
    assert all(factor.grad is not None for norm in norms_of(model) for factor in norm.factors)
    predictor_loss(ResolutionRecipe(together=True))(model, images, labels).backward()  # type: ignore[no-untyped-call]
    assert all(each.grad is not None for each in model.predictor.parameters())
    assert resized(images, 16) is images


class AsTuple(nn.Module):
    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        return (self.net(image),)


@pytest.mark.slow
def test_a_bundle_stores_the_weights_of_all_resolutions_once(tmp_path: Path) -> None:
    net = network(trained=True)
    net.trunk[3] = nn.Conv2d(16, 128, 3, 1, 1, bias=False)
    net.trunk[4] = nn.BatchNorm2d(128)
    net.classify = nn.Linear(128, 3)
    make_norms_private(net, 2)
    spread(net)
    sizes = {}
    for sides in ((16,), SIDES):
        models = {}
        for side in sides:
            with deployed(net, SIDES.index(side)) as fixed:
                models[side, side] = export_exits(AsTuple(fixed), IMAGE)
        recipe = AdaptiveRecipe(resolutions=tuple(models), precision="int8")
        build_adaptive(models, tmp_path / "net.edge", recipe, calibration="random")
        with Bundle.open(tmp_path / "net.edge") as bundle:
            sizes[len(sides)] = len(bundle.read("models/litert-int8.tflite"))
    assert sizes[2] - sizes[1] < 16 * 128 * 9 / 2  # far less than the integers of another network


@pytest.mark.slow
def test_the_page_about_training_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    page = (Path(__file__).parents[2] / "docs" / "train.md").read_text()
    code = "\n".join(part.split("```")[0] for part in page.split("**Limit.**")[0].split("```python\n")[1:])
    (tmp_path / "page.py").write_text(code)
    runpy.run_path(str(tmp_path / "page.py"))
    with Bundle.open(tmp_path / "net.edge") as bundle:
        assert [ladder.resolution for ladder in bundle.manifest.ladders] == [(16, 16), (24, 24), (32, 32)]
