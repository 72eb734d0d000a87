"""torch -> ONNX: names, dynamic axes, source lines, equal bytes, and errors that say where."""

from __future__ import annotations

import inspect
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from torch import nn

from edgekit.artifacts import Array, OnnxModel
from edgekit.converters.source_lines import metadata, source_of
from edgekit.converters.torch_to_onnx import export
from edgekit.errors import BadInput, BadModel, BadRecipe, MissingExtra
from edgekit.recipe import ExportRecipe


def scaled(x: torch.Tensor) -> torch.Tensor:
    return x.sigmoid() * 3


class Small(nn.Module):
    """Convolution with BatchNorm, a helper function, and a head."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, stride=2, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(4)
        self.head = nn.Linear(4, 5)
        self.drop = nn.Dropout(0.5)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.norm(self.conv(image)))
        x = scaled(x)
        scores: torch.Tensor = self.head(self.drop(x.mean((2, 3))))
        return scores


class Halves(nn.Module):
    """Halves the input twice and adds the halves up again: needs sides that are multiples of 4."""

    def __init__(self) -> None:
        super().__init__()
        self.down = nn.Conv2d(3, 3, 3, stride=2, padding=1)
        self.up = nn.ConvTranspose2d(3, 3, 2, stride=2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        half = self.down(x)
        full: torch.Tensor = self.up(half + self.up(self.down(half)))
        return x + full


class Function(nn.Module):
    def __init__(self, function: Callable[..., object]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: torch.Tensor) -> object:
        return self.function(x)


@torch.library.custom_op("edgekit_test::unknown", mutates_args=())
def unknown(x: torch.Tensor) -> torch.Tensor:
    return x.sin()


@unknown.register_fake
def _(x: torch.Tensor) -> torch.Tensor:
    return torch.empty_like(x)


def line_of(function: Callable[..., object], text: str) -> str:
    """``file:line in function`` of the line of ``function`` that holds ``text``."""
    lines, start = inspect.getsourcelines(function)
    number = start + next(at for at, line in enumerate(lines) if text in line)
    return f"tests/unit/test_export.py:{number} in {function.__name__}"


def answer(model: OnnxModel, *inputs: torch.Tensor) -> list[Array]:
    options = ort.SessionOptions()
    options.log_severity_level = 4
    session = ort.InferenceSession(model.data, options, providers=["CPUExecutionProvider"])
    names = [spec.name for spec in model.inputs]
    outputs: list[Array] = session.run(None, {name: x.numpy() for name, x in zip(names, inputs, strict=True)})
    return outputs


def notes(model: OnnxModel) -> dict[str, object]:
    proto = onnx.load_from_string(model.data)
    return {entry.key: json.loads(entry.value) for entry in proto.metadata_props}


@pytest.fixture(scope="module")
def network() -> nn.Module:
    torch.manual_seed(0)
    return Small()


@pytest.fixture(scope="module")
def exported(network: nn.Module) -> OnnxModel:
    return export(network, torch.zeros(1, 3, 16, 16))


@pytest.fixture(scope="module")
def dynamic(network: nn.Module) -> OnnxModel:
    recipe = ExportRecipe(dynamic_batch=True, dynamic_hw=True, input_names=("picture",), output_names=("scores",))
    return export(network, torch.zeros(1, 3, 16, 16), recipe)


# -- what is written -------------------------------------------------------------------------------------------------


def test_the_file_answers_as_the_network_in_eval_mode(network: nn.Module, exported: OnnxModel) -> None:
    x = torch.randn(1, 3, 16, 16)
    with torch.no_grad():
        want = network.eval()(x)
    np.testing.assert_allclose(answer(exported, x)[0], want.numpy(), atol=1e-5)
    assert [(spec.name, spec.shape) for spec in exported.inputs] == [("image", (1, 3, 16, 16))]
    assert notes(exported) == {"edgekit.example_shapes": {"image": [1, 3, 16, 16]}}


def test_dynamic_axes_take_any_size_under_the_given_names(network: nn.Module, dynamic: OnnxModel) -> None:
    assert [(spec.name, spec.shape) for spec in dynamic.inputs + dynamic.outputs] == [
        ("picture", (-1, 3, -1, -1)), ("scores", (-1, 5))]
    network.eval()
    for shape in ((1, 3, 16, 16), (3, 3, 9, 31)):
        x = torch.randn(shape)
        with torch.no_grad():
            want = network(x)
        np.testing.assert_allclose(answer(dynamic, x)[0], want.numpy(), atol=1e-5)


def test_dynamic_axes_have_readable_names_and_the_example_stays_as_a_hint(dynamic: OnnxModel) -> None:
    proto = onnx.load_from_string(dynamic.data)
    dims = proto.graph.input[0].type.tensor_type.shape.dim
    assert [dim.dim_param or dim.dim_value for dim in dims] == ["batch", 3, "height", "width"]
    assert proto.graph.output[0].type.tensor_type.shape.dim[0].dim_param == "batch"
    assert notes(dynamic) == {"edgekit.example_shapes": {"picture": [1, 3, 16, 16]}}


def test_a_step_that_the_network_needs_is_recorded() -> None:
    model = export(Halves(), torch.zeros(1, 3, 16, 16), ExportRecipe(dynamic_hw=True))
    assert notes(model)["edgekit.size_steps"] == {"x": [1, 1, 4, 4]}
    assert model.inputs[0].shape == (1, 3, -1, -1)
    assert answer(model, torch.zeros(1, 3, 8, 20))[0].shape == (1, 3, 8, 20)


def test_every_node_has_the_innermost_line_of_the_user(exported: OnnxModel, dynamic: OnnxModel) -> None:
    for model in (exported, dynamic):
        proto = onnx.load_from_string(model.data)
        lines = {source_of(node) for node in proto.graph.node}
        assert "" not in lines
        by_op = {node.op_type: source_of(node) for node in proto.graph.node}
        assert by_op["Conv"] == line_of(Small.forward, "self.conv(image)")
        assert by_op["Sigmoid"] == line_of(scaled, "sigmoid")
        assert by_op["Gemm"] == line_of(Small.forward, "self.head")
        assert all(line.startswith("tests/unit/test_export.py:") for line in lines)


def test_the_exporters_bulky_notes_are_gone(exported: OnnxModel, dynamic: OnnxModel) -> None:
    for model in (exported, dynamic):
        proto = onnx.load_from_string(model.data)
        assert all(metadata(node).keys() == {"edgekit.source"} for node in proto.graph.node)
        for mark in (b"pkg.torch", b"pkg.onnxscript", b"site-packages", str(Path.cwd()).encode()):
            assert mark not in model.data


def test_the_same_network_gives_the_same_bytes(network: nn.Module, dynamic: OnnxModel) -> None:
    recipe = ExportRecipe(dynamic_batch=True, dynamic_hw=True, input_names=("picture",), output_names=("scores",))
    assert export(network, torch.zeros(1, 3, 16, 16), recipe).data == dynamic.data


@pytest.mark.slow
def test_the_bytes_do_not_depend_on_the_process() -> None:
    code = ("import hashlib, torch; from tests.unit.test_export import Small; torch.manual_seed(0); "
            "from edgekit.converters.torch_to_onnx import export; from edgekit.recipe import ExportRecipe; "
            "model = export(Small(), torch.zeros(1, 3, 16, 16), ExportRecipe(dynamic_hw=True)); "
            "print(hashlib.sha256(model.data).hexdigest())")
    digests = {
        subprocess.run([sys.executable, "-c", code], env={"PYTHONHASHSEED": seed, "PATH": "", "HOME": "/"}, check=True,
                       capture_output=True, text=True, cwd=Path(__file__).resolve().parents[2]).stdout
        for seed in ("1", "2")
    }
    assert len(digests) == 1


def test_the_network_is_left_in_the_mode_it_was_in() -> None:
    network = Small()
    network.train()
    network.norm.eval()
    export(network, torch.zeros(1, 3, 8, 8))
    assert [(name, part.training) for name, part in network.named_modules()] == [
        ("", True), ("conv", True), ("norm", False), ("head", True), ("drop", True)]
    with pytest.raises(BadModel):
        export(network, torch.zeros(1, 4, 8, 8))
    assert network.training
    assert not network.norm.training


def test_a_returned_dictionary_names_the_outputs() -> None:
    model = export(Function(lambda x: {"twice": x * 2, "more": x + 1}), torch.zeros(2, 3))
    assert [spec.name for spec in model.outputs] == ["twice", "more"]
    twice, more = answer(model, torch.ones(2, 3))
    assert (twice == 2).all()
    assert (more == 2).all()


def test_several_inputs_share_what_they_must() -> None:
    class Two(nn.Module):
        def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
            return x + y

    model = export(Two(), (torch.zeros(1, 3), torch.zeros(1, 3)), ExportRecipe(dynamic_batch=True))
    assert [(spec.name, spec.shape) for spec in model.inputs] == [("x", (-1, 3)), ("y", (-1, 3))]
    assert (answer(model, torch.ones(4, 3), torch.ones(4, 3))[0] == 2).all()


def test_the_exporter_is_quiet(capfd: pytest.CaptureFixture[str], recwarn: pytest.WarningsRecorder) -> None:
    def talkative(x: torch.Tensor) -> torch.Tensor:
        print("hello from the network")  # noqa: T201 - it is what the test is about
        return x * 2

    export(Function(talkative), torch.zeros(2, 3))
    assert capfd.readouterr() == ("", "")
    assert not list(recwarn)


# -- what is refused -------------------------------------------------------------------------------------------------

IMAGE = torch.zeros(1, 3, 8, 8)


def test_a_network_for_one_size_is_not_called_dynamic() -> None:
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(144, 5))
    with pytest.raises(BadRecipe, match=r"axis 2 \(height, 8 in the example\) of 'input'.*== 144") as caught:
        export(network, IMAGE, ExportRecipe(dynamic_hw=True))
    assert "fixed size" in caught.value.remedy


def test_a_size_that_is_turned_into_a_number_is_not_dynamic() -> None:
    network = Function(lambda x: x.reshape(x.shape[0], 3, int(x.shape[2]) // 2, 2, -1).sum(3))
    with pytest.raises(BadRecipe, match="axis 2 of 'x': inside it becomes the constant 8"):
        export(network, IMAGE, ExportRecipe(dynamic_hw=True))


def test_an_op_that_the_exporter_silently_freezes_is_found_by_running_the_file() -> None:
    with pytest.raises(BadRecipe, match="right for the example's sizes only"):
        export(nn.AdaptiveAvgPool2d(2), IMAGE, ExportRecipe(dynamic_hw=True))
    assert export(nn.AdaptiveAvgPool2d(2), IMAGE).outputs[0].shape == (1, 3, 2, 2)


@pytest.mark.parametrize(
    ("recipe", "words"),
    [
        (ExportRecipe(input_names=("a", "b")), "2 input names were given and the network has 1 inputs.*image"),
        (ExportRecipe(output_names=("a", "b")), "2 output names"),
        (ExportRecipe(input_names=("a",), output_names=("a",)), "not all different"),
        (ExportRecipe(opset=99), "Opset 99 was asked for"),
    ],
)
def test_recipes_that_do_not_fit_are_refused(recipe: ExportRecipe, words: str, network: nn.Module) -> None:
    with pytest.raises(BadRecipe, match=words):
        export(network, torch.zeros(1, 3, 16, 16), recipe)


def test_dynamic_axes_that_do_not_exist_are_refused() -> None:
    with pytest.raises(BadRecipe, match="four axes"):
        export(nn.Linear(3, 2), torch.zeros(1, 3), ExportRecipe(dynamic_hw=True))
    with pytest.raises(BadRecipe, match="scalar"):
        export(Function(lambda x: x + 1), torch.zeros(()), ExportRecipe(dynamic_batch=True))


def branching(x: torch.Tensor) -> torch.Tensor:
    if x.sum() > 0:
        return x + 1
    return x


def with_unknown_op(x: torch.Tensor) -> torch.Tensor:
    y = x * 2
    z: torch.Tensor = unknown(y)
    return z


def with_decomposed_op(x: torch.Tensor) -> torch.Tensor:
    u: torch.Tensor = torch.linalg.svd(x)[0]
    return u


@pytest.mark.parametrize(
    ("function", "text", "reason"),
    [
        (branching, "x.sum() > 0", "data-dependent"),
        (with_unknown_op, "unknown(y)", "no counterpart of the op 'edgekit_test.unknown'"),
        (with_decomposed_op, "torch.linalg.svd", "no counterpart of the op 'aten._linalg_svd'"),
    ],
)
def test_a_network_that_cannot_be_exported_is_blamed_on_its_line(
    function: Callable[..., object], text: str, reason: str
) -> None:
    with pytest.raises(BadModel) as caught:
        export(Function(function), torch.zeros(2, 3))
    assert line_of(function, text) in caught.value.message
    assert reason in caught.value.message
    assert "\n" not in str(caught.value)


def test_what_the_libraries_said_is_attached_to_the_error() -> None:
    def fails(x: torch.Tensor) -> torch.Tensor:
        print("hello before the end")  # noqa: T201 - it is what the test is about
        return x @ x

    with pytest.raises(BadModel, match="must have same reduction dim") as caught:
        export(Function(fails), torch.zeros(2, 3))
    assert "hello before the end" in "\n".join(caught.value.__notes__)


@pytest.mark.parametrize("result", [lambda _: 3, lambda x: (x, "text"), lambda _: None])
def test_only_tensors_can_come_out(result: Callable[..., object]) -> None:
    with pytest.raises(BadModel, match="not a tensor"):
        export(Function(result), torch.zeros(2, 3))


@pytest.mark.parametrize("example", [(), "x", [torch.zeros(1)], (torch.zeros(1), 3)])
def test_an_example_is_made_of_tensors(example: object) -> None:
    with pytest.raises(BadInput):
        export(nn.Identity(), example)  # type: ignore[arg-type]


def test_only_modules_are_exported() -> None:
    with pytest.raises(BadModel, match=r"A function cannot be exported"):
        export(branching, torch.zeros(1))  # type: ignore[arg-type]


def test_an_example_that_does_not_fit_forward_is_a_bad_model() -> None:
    with pytest.raises(BadModel, match="cannot trace Small"):
        export(Small(), (IMAGE, IMAGE))


def test_a_missing_package_is_named_with_its_pip_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(MissingExtra, match=r"onnxscript.*pip install 'edgekit-sdk\[train\]'"):
        export(nn.Identity(), torch.zeros(1))
