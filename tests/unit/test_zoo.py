"""The zoo: published counts, exits, folding of BatchNorm, weights of other projects."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from edgekit.errors import BadModel, BadRecipe, UnknownName
from edgekit.recipe import ExportRecipe
from edgekit.train.multi_exit import ExitRecipe, MultiExit
from edgekit.zoo import ZOO, build, find
from edgekit.zoo.counts import counts, on_meta
from edgekit.zoo.fuse import fuse_batch_norm
from edgekit.zoo.state import Source, load_state, read_state
from edgekit.zoo.to_onnx import to_onnx

NAMES = [entry.name for entry in ZOO]
COUNTED = ["deit_tiny", "efficientnet_lite0", "g_ghost_regnet_032", "ghostnet_100", "levit_128s", "mobilenet_v2_100",
           "mobilenet_v3_small_100", "resnet50"]


def check_counts(name: str) -> None:
    entry, found = find(name), counts(name)
    assert found.macs == pytest.approx(entry.macs, rel=entry.tolerance) if entry.macs else found.macs > 1e6
    if entry.parameters:
        assert found.parameters == pytest.approx(entry.parameters, rel=entry.tolerance)


def fitted(name: str, **size: Any) -> nn.Module:
    """With BatchNorms and layer scales that are neither zero nor one, in eval mode."""
    torch.manual_seed(0)
    net = build(name, **size)
    for module in net.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            assert module.running_mean is not None
            assert module.running_var is not None
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, 0, 0.3)
            nn.init.normal_(module.running_mean, 0, 0.3)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
    return net.eval()


@torch.no_grad()
def logits(net: nn.Module, resolution: int, batch: int = 1) -> Tensor:
    found: Tensor = net(torch.randn(batch, 3, resolution, resolution, generator=torch.Generator().manual_seed(1)))
    return found


# -- counts ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", COUNTED)
def test_multiply_adds_and_parameters_are_as_published(name: str) -> None:
    check_counts(name)


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(set(NAMES) - set(COUNTED)))
def test_so_are_those_of_the_other_variants(name: str) -> None:
    check_counts(name)


@pytest.mark.parametrize(("name", "resolution", "macs"), [("mobilenet_v2_100", 192, 221e6), ("resnet50", 192, 3.0e9)])
def test_multiply_adds_at_another_resolution_are_as_published(name: str, resolution: int, macs: float) -> None:
    assert counts(name, resolution=resolution).macs == pytest.approx(macs, rel=0.02)  # table 4 of DRNet


def test_a_ghost_module_costs_what_the_formula_says() -> None:
    from edgekit.zoo.ghostnet import GhostModule

    cin, cout = 64, 96
    work = sum(each.weight.numel() for each in GhostModule(cin, cout, 3).modules() if isinstance(each, nn.Conv2d))
    assert cout * cin * 9 / work == pytest.approx(2 * cin / (cin + 1))  # s c / (s + c - 1) with s = 2, d = k = 3


def test_the_shortcut_without_weights_is_option_a_of_the_paper() -> None:
    from edgekit.zoo.resnet import PadShortcut

    x = torch.randn(2, 4, 6, 8, generator=torch.Generator().manual_seed(0))
    y = PadShortcut(4, 8, 2)(x)
    assert torch.equal(y[:, 2:6], x[:, :, ::2, ::2])
    assert y.shape == (2, 8, 3, 4)
    assert not y[:, :2].any()
    assert not y[:, 6:].any()


def test_entries_have_names_of_their_own_and_say_where_their_figures_are_from() -> None:
    assert len(set(NAMES)) == len(NAMES)
    assert not [entry.name for entry in ZOO if (entry.macs or entry.parameters) and not entry.source]


def test_width_depth_resolution_and_classes_are_free() -> None:
    whole = counts("mobilenet_v2_100", resolution=64)
    assert counts("mobilenet_v2_100", resolution=64, width=0.5).macs < 0.45 * whole.macs
    assert counts("mobilenet_v2_100", resolution=64, depth=2).parameters > 1.5 * whole.parameters
    assert on_meta("levit_128s", resolution=64, classes=7)(torch.empty(2, 3, 64, 64, device="meta")).shape == (2, 7)
    assert on_meta("g_ghost_regnet_040", width=0.5, depth=0.4, classes=7)(
        torch.empty(1, 3, 64, 64, device="meta")).shape == (1, 7)
    with pytest.raises(BadRecipe, match="multiple of 16"):
        build("deit_tiny", resolution=100)
    with pytest.raises(BadRecipe, match="width is 0"):
        build("resnet18", width=0)
    with pytest.raises(UnknownName, match="ghostnet_100"):
        build("ghostnet")


def test_a_network_of_one_size_is_not_exported_with_a_dynamic_one() -> None:
    with pytest.raises(BadRecipe, match="at the size only"):
        to_onnx(on_meta("levit_128s", resolution=64), find("levit_128s"), 64, ExportRecipe(dynamic_hw=True))


# -- exits -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["c_ghost_resnet56", "levit_128s"])
def test_exits_attach_at_the_named_points(name: str) -> None:
    check_exits(name)


@pytest.mark.slow
@pytest.mark.parametrize("name", [entry.name for entry in ZOO if entry.exits])
def test_exits_attach_in_every_network(name: str) -> None:
    check_exits(name)


def check_exits(name: str) -> None:
    entry = find(name)
    resolution = 32 if entry.dynamic else 64
    image = torch.zeros(2, 3, resolution, resolution)
    net = MultiExit(build(name, resolution=resolution, classes=5), entry.exits, image, ExitRecipe())
    assert len(entry.exits) >= 2
    assert [each.shape for each in net.eval()(image)] == [(2, 5)] * (len(entry.exits) + 1)


# -- folding ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "resolution"), [("ghostnet_050", 64), ("levit_128s", 64), ("resnet20_cifar", 32),
                                                  ("mca_tiny", 64)])
def test_folding_batch_norm_changes_nothing(name: str, resolution: int) -> None:
    net = fitted(name, resolution=resolution, classes=10)
    fused = fuse_batch_norm(net)
    assert not [each for each in fused.modules() if isinstance(each, nn.modules.batchnorm._BatchNorm)]
    before, after = logits(net, resolution, 2), logits(fused, resolution, 2)
    assert before.std() > 1e-3
    assert (before - after).abs().max() < 1e-4 * max(1.0, float(before.abs().max()))
    assert [each for each in net.modules() if isinstance(each, nn.modules.batchnorm._BatchNorm)], "it was a copy"


def test_levit_gathers_its_biases_once_and_again_after_new_weights() -> None:
    net = fitted("levit_128s", resolution=64, classes=10)
    attention: Any = net.get_submodule("stages.0.blocks.0.attention")
    state = {key: value + 1.0 if key.endswith("biases") else value for key, value in net.state_dict().items()}
    state["stages.0.blocks.0.attention.biases"] = torch.arange(4 * 16.0).reshape(4, 16)
    net.load_state_dict(state)
    assert attention.table.shape == (4, 16, 16)
    # from token (y 1, x 2) to token (y 3, x 0) of the 4 x 4 map: the bias of |dy| 2, |dx| 2
    assert attention.table[1, 1 * 4 + 2, 3 * 4 + 0] == state["stages.0.blocks.0.attention.biases"][1, 2 * 4 + 2]
    kept = logits(net, 64)
    attention.train()
    assert attention.table.numel() == 0
    attention.eval()
    assert torch.equal(logits(net, 64), kept)


# -- weights of other projects ---------------------------------------------------------------------------------------


def timm_resnet(key: str) -> str:
    name, _, tail = key.rpartition(".")
    parts = name.split(".")
    if parts[0] == "stem":
        return f"{'conv1' if parts[1] == '0' else 'bn1'}.{tail}"
    if parts[0] == "head":
        return f"fc.{tail}"
    stage, block, part = int(parts[1]) + 1, parts[2], parts[3]
    if part == "shortcut":
        return f"layer{stage}.{block}.downsample.{parts[4]}.{tail}"
    return f"layer{stage}.{block}.{('conv', 'bn')[int(parts[5])]}{int(parts[4]) + 1}.{tail}"


def torchvision_mobilenet_v2(key: str) -> str:
    key = key.replace("head.classifier", "classifier.1").replace("head.conv", "features.18")
    if not key.startswith("stages."):
        return key.replace("stem.", "features.0.")
    _, stage, block, role, index, tail = key.split(".")
    flat = sum((1, 2, 3, 4, 3, 3, 1)[:int(stage)]) + int(block)
    roles = ["expand", "depthwise"] if flat else ["depthwise"]
    inner = f"{len(roles) + int(index)}" if role == "project" else f"{roles.index(role)}.{index}"
    return f"features.{flat + 1}.conv.{inner}.{tail}"


@pytest.mark.parametrize(("name", "source", "theirs"), [
    ("resnet18", "timm", timm_resnet), ("mobilenet_v2_100", "torchvision", torchvision_mobilenet_v2),
])
def test_names_of_other_projects_find_their_place(name: str, source: Source, theirs: Callable[[str], str]) -> None:
    net = build(name, width=0.25, classes=10)
    new = {key: torch.full_like(value, index) for index, (key, value) in enumerate(net.state_dict().items())}
    given = {theirs(key): value for key, value in new.items()}
    assert set(given).isdisjoint(new)
    load_state(net, given, source)
    assert all(torch.equal(value, new[key]) for key, value in net.state_dict().items())


def test_what_does_not_fit_is_named_and_nothing_changes() -> None:
    net = build("resnet20_cifar")
    before = {key: value.clone() for key, value in net.state_dict().items()}
    state = {key: torch.zeros_like(value) for key, value in before.items()}
    with pytest.raises(BadModel, match=r"Missing: head\.classifier\.weight"):
        load_state(net, {key: value for key, value in state.items() if "classifier.weight" not in key})
    with pytest.raises(BadModel, match="Unknown: more"):
        load_state(net, state | {"more": torch.zeros(1)})
    with pytest.raises(BadModel, match=r"Of another shape: head.classifier.bias \[7\] instead of \[10\]"):
        load_state(net, state | {"head.classifier.bias": torch.zeros(7)})
    with pytest.raises(UnknownName, match="Known: edgekit"):
        load_state(net, state, "timm")
    assert all(torch.equal(value, before[key]) for key, value in net.state_dict().items())
    load_state(net, state | {"head.classifier.bias": torch.zeros(7)}, skip_head=True)
    assert torch.equal(net.state_dict()["head.classifier.bias"], before["head.classifier.bias"])
    assert not net.state_dict()["stem.0.weight"].any()


def test_a_convolution_of_one_pixel_fits_a_linear_layer_and_epsilon_is_the_sources() -> None:
    net = build("mobilenet_v3_small_100", width=0.25, classes=10)
    names: Any = net.sources["torchvision"]  # type: ignore[index]
    assert names.rename(net, "features.2.block.1.1.bias") == "stages.1.0.depthwise.1.bias"
    assert names.rename(net, "features.1.block.1.fc2.bias") == "stages.0.0.excite.expand.bias"
    state = dict(net.state_dict())
    state["head.hidden.weight"] = state["head.hidden.weight"][:, :, None, None]
    load_state(net, state, "torchvision")
    assert {each.eps for each in net.modules() if isinstance(each, nn.BatchNorm2d)} == {1e-3}


def test_files_of_weights(tmp_path: Path) -> None:
    torch.save({"state_dict": {"a": torch.ones(2)}, "epoch": 3}, tmp_path / "a.pt")
    assert torch.equal(read_state(tmp_path / "a.pt")["a"], torch.ones(2))
    torch.save([1], tmp_path / "b.pt")
    with pytest.raises(BadModel, match="list and not a state dict"):
        read_state(tmp_path / "b.pt")
    (tmp_path / "c.pt").write_bytes(b"no weights")
    with pytest.raises(BadModel, match="can be read"):
        read_state(tmp_path / "c.pt")
    torch.save(build("resnet20_cifar"), tmp_path / "d.pt")  # a whole network: reading it would run code
    with pytest.raises(BadModel, match="can be read"):
        read_state(tmp_path / "d.pt")
