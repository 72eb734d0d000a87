"""Cases of LSTM, GRU and RNN: T steps of a batch of N, F features, H hidden."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tests.ops.harness import Case

T, N, F, H = 5, 2, 3, 4
_GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}
_RNG = np.random.default_rng(11)


def weights(*shape: int) -> np.ndarray:
    """Fixed random weights."""
    return (_RNG.standard_normal(shape) * 0.5).astype(np.float32)


def lengths(*values: int) -> np.ndarray:
    """Sequence lengths."""
    return np.array(values, np.int32)


def case(
    op: str, direction: str = "forward", x: tuple[int, int] = (T, N), rest: Sequence[Any] = (), **more: Any
) -> Case:
    """One layer with a bias; ``rest``: inputs from sequence_lens on; ``more``: attributes and fields of Case."""
    count, gates = 2 if direction == "bidirectional" else 1, _GATES[op]
    fields: Mapping[str, Any] = {key: more.pop(key) for key in ("dynamic", "expect", "opset", "outputs") if key in more}
    given = [weights(count, gates * H, F), weights(count, gates * H, H), weights(count, 2 * gates * H)]
    attributes = {"hidden_size": H, "direction": direction, **more}
    settings = {"outputs": 3 if op == "LSTM" else 2, "opset": 14, **fields}
    return Case(op, [(*x, F), *given, *rest], attributes, **settings)


_STATES = {"LSTM": [(1, N, H), (1, N, H)], "GRU": [(1, N, H)], "RNN": [(1, N, H)]}
RECURRENT = [
    *(
        case(op, direction, opset=opset)
        for op in _GATES
        for direction, opset in (("forward", 7), ("reverse", 14), ("bidirectional", 20))
    ),
    *(case(op, "bidirectional", x=(1, N), expect={"WHILE": 0}) for op in _GATES),
    *(case(op, dynamic=(0, 1)) for op in _GATES),
    *(case(op, "bidirectional", dynamic=(0,)) for op in _GATES),
    *(case(op, rest=[None, *states]) for op, states in _STATES.items()),
    *(case(op, rest=[lengths(T, T)], expect={"SELECT_V2": 0}) for op in _GATES),
    *(case(op, "bidirectional", rest=[lengths(2, T)]) for op in _GATES),
    *(case(op, "reverse", rest=[lengths(T, 3)], dynamic=(0, 1)) for op in _GATES),
    *(case(op, clip=0.4) for op in _GATES),
    *(case(op, x=(31, 1), expect={"WHILE": 1}) for op in _GATES),
    case("GRU", linear_before_reset=1),
    case("GRU", "bidirectional", rest=[None, weights(2, N, H)], linear_before_reset=1),
    case("LSTM", rest=[None, None, None, weights(1, 3 * H)]),
    case("LSTM", "bidirectional", rest=[lengths(T, 1), None, None, weights(2, 3 * H)], clip=0.5),
    case("LSTM", input_forget=1),
    case("LSTM", activations=["HardSigmoid", "Relu", "Softsign"], activation_alpha=[0.3], activation_beta=[0.4]),
    case("RNN", "bidirectional", activations=["Affine", "ScaledTanh"], activation_alpha=[0.5, 0.7],
         activation_beta=[0.1, 1.2]),
    case("RNN", activations=["LeakyRelu"], outputs=1),
    Case("GRU", [(T, N, F), (1, 3 * H, F), (1, 3 * H, H), (1, 6 * H)], {"hidden_size": H}, opset=14, outputs=2),
    Case("LSTM", [(T, N, F), (1, 4 * H, F), (1, 4 * H, H)], {"hidden_size": H}, opset=14, outputs=1),
]  # fmt: skip
