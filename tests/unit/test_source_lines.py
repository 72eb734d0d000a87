"""The user's source line on nodes, without torch: traces as its exporter writes them, on graphs made here."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest
from onnx import TensorProto, helper

from edgekit.converters.source_lines import annotate, innermost_user_line, metadata, source_of

SITE = "/opt/env/lib/python3.11/site-packages"
USER = f'File "{Path.cwd()}/nets/unet.py", line 31, in forward\n    y = self.up(x)\n'
HELPER = f'  File "{Path.cwd()}/nets/blocks.py", line 7, in upsample\n    return f(x)\n'
TORCH = f'  File "{SITE}/torch/nn/functional.py", line 99, in relu\n    return x\n'
PACKAGE = f'File "{SITE}/some_nets/resnet.py", line 5, in forward\n'


def node(op_type: str, reads: str, makes: str, trace: str = "") -> onnx.NodeProto:
    made = helper.make_node(op_type, [reads], [makes])
    notes = {"pkg.torch.onnx.stack_trace": trace, "pkg.torch.onnx.fx_node": "%relu : ...", "namespace": "a"}
    for key, value in notes.items():
        if value:
            made.metadata_props.add(key=key, value=value)
    return made


def annotated(*nodes: onnx.NodeProto) -> list[str]:
    value = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1])
    value.metadata_props.add(key="pkg.torch.export.graph_signature.InputSpec.kind", value="USER_INPUT")
    proto = helper.make_model(helper.make_graph(list(nodes), "g", [value], []))
    proto.graph.metadata_props.add(key="pkg.torch.export.ExportedProgram.graph_signature", value="long")
    annotate(proto)
    assert b"pkg.torch" not in proto.SerializeToString()
    assert all(metadata(each).keys() <= {"edgekit.source"} for each in proto.graph.node)
    return [source_of(each) for each in proto.graph.node]


@pytest.mark.parametrize(
    ("trace", "line"),
    [
        (USER + TORCH, "nets/unet.py:31 in forward"),
        (USER + HELPER + TORCH, "nets/blocks.py:7 in upsample"),
        (PACKAGE + TORCH, "some_nets/resnet.py:5 in forward"),
        (TORCH, ""),
        ('File "torch/fx/passes/runtime_assert.py", line 24, in insert', ""),
        ('File "<eval_with_key>.39", line 6, in forward', ""),
        ("", ""),
    ],
)
def test_the_innermost_line_outside_torch_counts(trace: str, line: str) -> None:
    assert innermost_user_line(trace) == line


def test_a_path_outside_any_package_keeps_its_name_only() -> None:
    assert innermost_user_line('File "/home/someone/secret/net.py", line 2, in forward') == "net.py:2 in forward"


def test_a_path_in_a_package_elsewhere_starts_at_the_package(tmp_path: Path) -> None:
    inner = tmp_path / "mynets" / "blocks"
    inner.mkdir(parents=True)
    for folder in (inner, inner.parent):
        (folder / "__init__.py").touch()
    assert innermost_user_line(f'File "{inner}/a.py", line 2, in f') == "mynets/blocks/a.py:2 in f"


def test_a_node_without_a_line_takes_that_of_its_producer_else_of_its_consumer() -> None:
    first, second = USER + TORCH, USER.replace("31", "32")
    assert annotated(
        node("Shape", "x", "s"), node("Conv", "x", "c", first), node("Relu", "c", "r"), node("Exp", "r", "e", second),
        node("Neg", "s", "n"), node("Abs", "n", "a", second),
    ) == [f"nets/unet.py:{line} in forward" for line in (32, 31, 31, 32, 32, 32)]


def test_where_nobody_near_has_a_line_any_is_better_than_none() -> None:
    assert annotated(node("Relu", "x", "a", USER), node("Exp", "q", "b")) == ["nets/unet.py:31 in forward"] * 2
    assert annotated(node("Relu", "x", "a", TORCH)) == ["torch/nn/functional.py:99 in relu"]
    assert annotated(node("Relu", "x", "a")) == [""]


def test_bodies_of_branches_take_the_line_of_their_node() -> None:
    bare = node("Relu", "x", "t")
    own = node("Exp", "t", "u", USER.replace("31", "40"))
    body = helper.make_graph([bare, own], "body", [], [])
    outer = node("If", "x", "y", USER)
    outer.attribute.append(helper.make_attribute("then_branch", body))
    proto = helper.make_model(helper.make_graph([outer], "g", [], []))
    annotate(proto)
    inner = proto.graph.node[0].attribute[0].g.node
    assert [source_of(each) for each in inner] == ["nets/unet.py:40 in forward"] * 2
    assert source_of(proto.graph.node[0]) == "nets/unet.py:31 in forward"
