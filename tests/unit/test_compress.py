"""edgekit.compress: what goes together, the loss of a removal, rates, multiply-adds of what is built."""

from __future__ import annotations

import copy
import itertools
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from edgekit.compress.allocate import Fit, fit_curve, rates
from edgekit.compress.plan import Compressor, mean_gradients
from edgekit.compress.recipe import CompressRecipe
from edgekit.compress.resize import merged, shrink, split
from edgekit.compress.saved import rebuild, save
from edgekit.compress.structure import count_macs, structure
from edgekit.compress.units import Job, Reader, Remover, rounded
from edgekit.errors import BadModel, BadRecipe
from edgekit.zoo import build


class Twisted(nn.Module):
    """A residual, a depthwise layer, a gate, a concatenation, halves, a norm over channels, a flattened head."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(1, 12, 3, 2, 1, bias=False), nn.BatchNorm2d(12), nn.ReLU())
        self.inner = nn.Sequential(nn.Conv2d(12, 20, 1), nn.BatchNorm2d(20), nn.ReLU(),
                                   nn.Conv2d(20, 20, 3, 1, 1, groups=20), nn.Hardswish(), nn.Conv2d(20, 12, 1))
        self.squeeze, self.excite = nn.Linear(12, 6), nn.Linear(6, 12)
        self.wide = nn.Conv2d(24, 16, 3, 2, 1)
        self.halves = nn.Conv2d(8, 10, 1)
        self.norm = nn.LayerNorm(10)
        self.mix = nn.Linear(10, 14)
        self.head = nn.Linear(14 * 16, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        y = x + self.inner(x)
        gate = self.excite(self.squeeze(y.mean((2, 3))).relu()).sigmoid()
        y = torch.cat([x, y * gate[:, :, None, None]], dim=1)
        first, second = self.wide(y).chunk(2, dim=1)
        z = self.norm(self.halves(first * second).permute(0, 2, 3, 1))
        logits: Tensor = self.head(self.mix(z).relu().permute(0, 3, 1, 2).flatten(1))
        return logits


class Fixed(nn.Module):
    """Its code states a number of channels."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.next, self.head = nn.Conv2d(1, 4, 3), nn.Conv2d(4, 4, 1), nn.Linear(4 * 36, 3)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(self.next(self.conv(x)).view(-1, 4 * 36))
        return logits


def vgg() -> nn.Sequential:
    torch.manual_seed(0)
    layers: list[nn.Module] = []
    for cin, cout in ((1, 16), (16, 24), (24, 32)):
        layers += [nn.Conv2d(cin, cout, 3, 1, 1, bias=False), nn.BatchNorm2d(cout), nn.ReLU(), nn.MaxPool2d(2)]
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(32 * 4, 10))


def loss(network: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
    return functional.cross_entropy(network(images), labels)


def gradients(network: nn.Module, images: Tensor) -> dict[str, Tensor]:
    return mean_gradients(network, [(images, torch.arange(len(images)) % 5)], loss)


@pytest.fixture(scope="module")
def small() -> tuple[nn.Module, Tensor, dict[str, Tensor]]:
    """A network whose BatchNorms have statistics, images, and its gradients."""
    torch.manual_seed(1)
    network, images = vgg(), torch.randn(16, 1, 16, 16)
    for _ in range(3):
        network(images)
    return network.eval(), images, gradients(network, images)


@pytest.fixture(scope="module")
def compressor(small: tuple[nn.Module, Tensor, dict[str, Tensor]]) -> Compressor:
    return Compressor(*small, CompressRecipe(multiple=4))


def job(channels: int = 5, cout: int = 6, per: int = 2) -> Job:
    torch.manual_seed(2)
    weight = torch.randn(cout, channels, per, dtype=torch.float64)
    return Job(None, (Reader("w", weight, torch.rand_like(weight), 1, True),), True)


def test_what_goes_together_goes_and_the_network_computes_the_same_without() -> None:
    torch.manual_seed(0)
    network, images = Twisted().eval(), torch.randn(3, 1, 16, 16)
    found = structure(network, images)
    shared = {("stem.0.weight", 0), ("inner.5.weight", 0), ("excite.weight", 0)}
    assert [site.channels for site in found.sites if shared <= set(site.makers)] == [12]
    assert {("wide.weight", 0), ("halves.weight", 0)}.isdisjoint(key for site in found.sites for key in site.makers)
    removal = merged([site.removal([0, site.channels - 1]) for site in found.sites])
    smaller, silent = copy.deepcopy(network), copy.deepcopy(network)
    with torch.no_grad():
        for site in found.sites:
            for name, axis in site.readers:
                silent.get_parameter(name).index_fill_(axis, torch.from_numpy(removal[name, axis]), 0)
    shrink(smaller, removal)
    assert smaller.get_submodule("inner.3").groups == 18
    torch.testing.assert_close(smaller(images), silent(images), atol=1e-5, rtol=1e-5)
    kept = {key: found.shapes[key[0]][key[1]] - len(gone) for key, gone in removal.items()}
    assert found.macs_of(kept, {}) == count_macs(smaller, images) < found.macs == count_macs(network, images)


def test_a_size_in_the_code_keeps_its_channels() -> None:
    found = structure(Fixed().eval(), torch.randn(2, 1, 8, 8))
    assert [site.makers for site in found.sites] == [(("conv.weight", 0),)]


@pytest.mark.parametrize("gamma", [0.0, 0.9])
def test_scores_are_the_losses_and_the_expected_ones(gamma: float) -> None:
    """Against every removal and every second removal, one by one, after some are gone already."""
    one = job()
    remover = Remover(one, CompressRecipe(step_share=0.1))
    remover.step()
    remover.settle(4, [5])
    reader = one.readers[0]
    now = remover._now(reader, remover.bases[0])
    scores, units = remover._scores(gamma)
    basis, flat = remover._vectors[0], now.flatten(1)
    parts = [flat * (torch.arange(10) // 2 == column)[None, :] if index < 0 else
             basis[:, [column]] @ (basis[:, [column]].T @ flat) for index, column in units]

    def lost(gone: Tensor) -> float:
        return float((reader.squares.flatten(1) * (flat - gone - reader.weight.flatten(1)) ** 2).sum())

    direct = []
    for first, part in enumerate(parts):
        # a column of the singular terms goes with a channel; q of the formula is without it
        seconds = []
        for second, other in enumerate(parts):
            if second != first:
                both = units[first][0] < 0 <= units[second][0]
                seconds.append(lost(part + (other * (part == 0) if both else other)))
        direct.append(lost(part) + gamma * float(np.mean(seconds)))
    if gamma == 0:
        np.testing.assert_allclose(scores - scores[0], np.array(direct) - direct[0], atol=1e-9)
    else:  # the paper's sum leaves W - u whole where a singular value follows a channel: the order is what counts
        assert np.corrcoef(scores, direct)[0, 1] > 0.95


def test_what_is_left_of_a_layer_is_a_projection_and_settles_to_the_counts() -> None:
    one = job(8, 12, 3)
    remover = Remover(one, CompressRecipe(step_share=0.05))
    states = remover.states()
    assert states[-1].rate >= 0.95 or states[-1].kept == 1
    assert all(later.rate >= before.rate and later.loss >= before.loss - 1e-9
               for before, later in itertools.pairwise(states))
    again = Remover(one, CompressRecipe(step_share=0.05))
    for _ in range(len(states) // 2):
        again.step()
    state = again.state()
    assert state == states[len(states) // 2]
    for channels, rank in ((state.kept + 1, 6), (2, 3)):
        again.settle(channels, [rank])
        basis = again.bases[0]
        assert basis is not None
        assert (int(again.kept.sum()), basis.shape[1]) == (channels, rank)
        torch.testing.assert_close(basis.T @ basis, torch.eye(rank, dtype=torch.float64))


def test_counts_are_rounded_to_multiples_and_the_whole_stays() -> None:
    assert [rounded(count, 20, 8) for count in (1, 11, 12, 19, 20)] == [8, 8, 16, 16, 20]
    assert rounded(3, 5, 8) == 5
    assert rounded(3, 5, 1) == 3


def test_an_exponential_is_found_again() -> None:
    at = np.linspace(0.05, 0.95, 40)
    fit = fit_curve(at, 7.0 * 0.02 * np.exp(4 * at), 10)
    assert fit.b == pytest.approx(4, rel=1e-3)
    assert fit.loss(0.5) == pytest.approx(7.0 * 0.02 * np.exp(2), rel=1e-3)
    assert fit.r2 > 0.999


def test_exact_rates_lose_least_for_the_multiply_adds_they_save() -> None:
    fits = [Fit(0.02, 4.0, 3.0, 900, 1.0), Fit(0.1, 2.0, 0.5, 100, 1.0), Fit(0.05, 3.0, 8.0, 400, 1.0)]

    def saved(found: list[float]) -> float:
        return sum(fit.macs * rate for fit, rate in zip(fits, found, strict=True))

    def cost(found: list[float]) -> float:
        return sum(fit.loss(rate) for fit, rate in zip(fits, found, strict=True))

    def to(budget: float, rule: str) -> list[float]:
        low, high = -60.0, 60.0
        for _ in range(80):
            middle = (low + high) / 2
            low, high = (middle, high) if saved(rates(fits, middle, rule, 0.95)) < budget else (low, middle)  # type: ignore[arg-type]
        return rates(fits, high, rule, 0.95)  # type: ignore[arg-type]

    exact, released, uniform = (to(700.0, rule) for rule in ("exact", "released", "uniform"))
    assert saved(exact) == pytest.approx(700) == pytest.approx(saved(released)) == pytest.approx(saved(uniform))
    assert cost(exact) < min(cost(released), cost(uniform))
    for shift in (0.01, -0.01):  # nothing near is better: move rate from one site to another
        moved = [exact[0] + shift * fits[2].macs / fits[0].macs, exact[1], exact[2] - shift]
        assert cost(moved) > cost(exact)
    marginal = [fit.a * fit.b * np.exp(fit.b * rate) for fit, rate in zip(fits, released, strict=True) if rate > 0]
    np.testing.assert_allclose(marginal, marginal[0])


@pytest.mark.parametrize("share", [0.7, 0.5, 0.2])
def test_the_formula_counts_what_is_built(
    compressor: Compressor, small: tuple[nn.Module, Tensor, dict[str, Tensor]], share: float
) -> None:
    plan = compressor.plan(int(share * compressor.structure.macs))
    built = compressor.apply(plan)
    assert plan.macs == count_macs(built, small[1]) <= share * compressor.structure.macs
    assert all(size % 4 == 0 for size in plan.kept.values())
    assert torch.isfinite(built(small[1])).all()


def test_a_layer_split_at_full_rank_computes_the_same() -> None:
    torch.manual_seed(0)
    network, images = nn.Sequential(nn.Conv2d(2, 6, 3, 2, 1), nn.ReLU(), nn.Flatten(), nn.Linear(96, 5)), torch.randn(
        2, 2, 8, 8)
    wanted = network(images)
    for layer, cout in (("0", 6), ("3", 5)):
        split(network, layer, torch.linalg.qr(torch.randn(cout, cout)).Q)
    torch.testing.assert_close(network(images), wanted)


def test_a_target_out_of_reach_says_what_is_left(compressor: Compressor) -> None:
    with pytest.raises(BadRecipe, match="are left when"):
        compressor.plan(100)


def test_a_saved_network_is_rebuilt_on_its_code(compressor: Compressor, small: tuple[nn.Module, Tensor, object],
                                                tmp_path: Path) -> None:
    plan = compressor.plan(compressor.structure.macs // 3)
    built = compressor.apply(plan)
    save(built, {name.rpartition(".")[0]: rank for name, rank in plan.ranks.items()}, tmp_path / "small.pt")
    again = rebuild(vgg(), tmp_path / "small.pt").eval()
    torch.testing.assert_close(again(small[1]), built(small[1]))
    with pytest.raises(BadModel, match="another network"):
        rebuild(Fixed(), tmp_path / "small.pt")
    torch.save(vgg().state_dict(), tmp_path / "plain.pt")
    with pytest.raises(BadModel, match="not written by"):
        rebuild(vgg(), tmp_path / "plain.pt")


@pytest.mark.slow
@pytest.mark.parametrize("name", ["resnet20_cifar", "mobilenet_v3_small_100", "ghostnet_050", "shufflenet_v2_050",
                                  "convnext_atto", "unet_16"])
def test_networks_of_the_zoo_can_be_narrowed(name: str) -> None:
    torch.manual_seed(0)
    network, images = build(name, resolution=32, classes=10).eval(), torch.randn(1, 3, 32, 32)
    found = structure(network, images)
    assert len(found.sites) > 5
    removal = merged([site.removal(range(0, site.channels, 3)) for site in found.sites])
    shrink(network, removal)
    kept = {key: found.shapes[key[0]][key[1]] - len(gone) for key, gone in removal.items()}
    assert found.macs_of(kept, {}) == count_macs(network, images) < 0.85 * found.macs
