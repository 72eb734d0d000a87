"""The networks that converters are compared on."""

from __future__ import annotations

from pathlib import Path

import pytest

torch = pytest.importorskip("torch")

from benchmarks import convert, nets, nets_more  # noqa: E402 - only once torch is known to be there
from edgekit.errors import UnknownName  # noqa: E402 - as above


def test_an_unknown_network_is_refused_with_the_known_ones() -> None:
    with pytest.raises(UnknownName, match="mobilenet_v2"):
        nets.make("alexnet")


def test_the_comparison_knows_every_network() -> None:
    assert set(convert.NET_NAMES) == set(nets.NETS)


@pytest.mark.parametrize(("name", "millions"), [
    # Published parameter counts (torchvision's for all but MobileNetV1 and GhostNet, whose papers give 4.2 and 5.2).
    ("mobilenet_v1", 4.23), ("mobilenet_v2", 3.50), ("mobilenet_v3_small", 2.54), ("mobilenet_v3_large", 5.48),
    ("resnet18", 11.69), ("resnet50", 25.56), ("ghostnet", 5.18),
])
def test_networks_have_the_published_number_of_parameters(name: str, millions: float) -> None:
    with torch.device("meta"):
        net = nets.NETS[name]()
        scores = net.eval()(torch.empty(1, 3, 224, 224))
    assert sum(p.numel() for p in net.parameters()) / 1e6 == pytest.approx(millions, abs=0.006)
    assert scores.shape == (1, 1000)


@pytest.mark.parametrize(("name", "shape", "classes", "parameters"), [
    # ShuffleNetV2 1.0 has 2,278,604 with 1000 classes: 900 x 1025 fewer here
    ("shufflenet_v2", (3, 224, 224), 100, 1_356_104),
    ("vit_tiny", (3, 224, 224), 100, None), ("convnext_tiny", (3, 128, 128), 100, None),
    ("lstm", (32, 16), 10, None),
    ("dynamic_convnet", (3, 96, 96), 10, None), ("dynamic_convnet", (3, 61, 130), 10, None),
])
def test_networks_of_other_families_give_scores(
        name: str, shape: tuple[int, ...], classes: int, parameters: int | None) -> None:
    with torch.device("meta"):
        net = nets.NETS[name]().eval()
        assert net(torch.empty(2, *shape)).shape == (2, classes)
    assert parameters in (None, sum(p.numel() for p in net.parameters()))


def test_shuffling_interleaves_the_halves() -> None:
    """What a unit that changes nothing gives: channels 0, n, 1, n + 1, ... of its input."""
    unit = nets_more.ShuffleUnit(8, 8, 1)
    unit.branch = torch.nn.Identity()
    channels = torch.arange(8.0).reshape(1, 8, 1, 1).expand(1, 8, 2, 3)
    assert unit(channels)[0, :, 0, 0].tolist() == [0, 4, 1, 5, 2, 6, 3, 7]


def test_u_net_keeps_the_size_of_its_image() -> None:
    with torch.device("meta"):
        assert nets.UNet().eval()(torch.empty(2, 3, 160, 160)).shape == (2, 2, 160, 160)


def test_making_is_reproducible_and_examples_follow_their_seed() -> None:
    first, second = nets.make("mlp"), nets.make("mlp")
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))
    assert torch.equal(nets.example("mlp"), nets.example("mlp"))
    assert not torch.equal(nets.example("mlp"), nets.example("mlp", seed=2))


@pytest.mark.slow
def test_batch_norm_statistics_are_fitted_and_reload_gives_the_same_answers(tmp_path: Path) -> None:
    net = nets.make("mobilenet_v3_small")
    norms = [module for module in net.modules() if isinstance(module, torch.nn.BatchNorm2d)]
    assert all(not torch.equal(norm.running_var, torch.ones_like(norm.running_var)) for norm in norms)
    torch.save(net.state_dict(), tmp_path / "weights.pt")
    image = nets.example("mobilenet_v3_small")
    with torch.no_grad():
        scores = net(image)
        assert torch.equal(scores, nets.load("mobilenet_v3_small", str(tmp_path / "weights.pt"))(image))
    assert scores.std() > 1e-3
