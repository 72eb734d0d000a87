"""Einsum of one or two operands: diagonals, sums, a BATCH_MATMUL, and a change of view."""

from __future__ import annotations

import re
from string import ascii_letters

import numpy as np

from edgekit.converters.onnx_to_litert.builder import Builder
from edgekit.converters.onnx_to_litert.graph import is_static
from edgekit.converters.onnx_to_litert.node import Node, Refused
from edgekit.converters.onnx_to_litert.ops.matmul import product
from edgekit.converters.onnx_to_litert.sizes import axis_positions
from edgekit.converters.onnx_to_litert.view import View, align, reshape_view, store

__all__ = ["einsum"]

_FORM = re.compile(r"^[A-Za-z.,]*(->[A-Za-z.]*)?$")


def einsum(b: Builder, node: Node) -> View:
    """Einsum: operands are brought to (batch, rows, inner) and (batch, inner, columns) and multiplied."""
    views = [node.view(index) for index in range(len(node.inputs))]
    terms, result = _letters(node.text("equation", "").replace(" ", ""), [view.rank for view in views])
    operands = [_diagonal(b, view, term) for view, term in zip(views, terms, strict=True)]
    while len(operands) > 1:
        later = "".join(term for _, term in operands[2:]) + result
        operands[:2] = [_pair(b, operands[0], operands[1], later)]
    view, term = _summed(b, *operands[0], result)
    return View(view.tensor, tuple(result.index(term[axis]) for axis in view.order))


def _letters(equation: str, ranks: list[int]) -> tuple[list[str], str]:
    """The letters of each operand's axes and of the result's, "..." written out."""
    if not _FORM.match(equation):
        raise Refused(f"its equation '{equation}' cannot be read")
    left, arrow, right = equation.partition("->")
    terms = left.split(",")
    if len(terms) != len(ranks):
        raise Refused(f"its equation '{equation}' is for {len(terms)} operands, it has {len(ranks)}")
    free = [letter for letter in ascii_letters if letter not in equation]
    widest = max((rank - len(t.replace(".", "")) for t, rank in zip(terms, ranks, strict=True) if "." in t), default=0)
    dots = "".join(free[:widest])
    full = [_written(term, dots, rank) for term, rank in zip(terms, ranks, strict=True)]
    if arrow:
        return full, right.replace("...", dots)
    once = sorted(letter for letter in set(left) - set(".,") if left.count(letter) == 1)
    return full, dots + "".join(once)


def _written(term: str, dots: str, rank: int) -> str:
    if "..." not in term:
        return term
    count = rank - len(term) + 3
    return term.replace("...", dots[len(dots) - count :])


def _diagonal(b: Builder, view: View, term: str) -> tuple[View, str]:
    """The operand with axes of equal letters drawn together."""
    for letter in dict.fromkeys(term):
        while term.count(letter) > 1:
            first, second = term.index(letter), term.rindex(letter)
            size = view.shape[first]
            if size < 0 or not is_static(view.shape):
                raise Refused("it takes the diagonal of dynamic axes", "Fix the input's shape with --shape.")
            shape = tuple(size if axis in (first, second) else 1 for axis in range(view.rank))
            same = b.constant_data(axis_positions(b, shape, first)) == b.constant_data(axis_positions(b, shape, second))
            (tensor, mask), order = align(b, [view, View.of(b.const(same.astype(view.dtype)))])
            masked = b.binary("MUL", tensor, mask)
            view = _without(b, View(masked, order), [second])
            term = term[:second] + term[second + 1 :]
    return view, term


def _without(b: Builder, view: View, axes: list[int]) -> View:
    """``view`` summed over ONNX ``axes``, which go away."""
    tensor = b.reduce("SUM", view.tensor, [view.axis(axis) for axis in axes], keep=False)
    left = [axis for axis in view.order if axis not in axes]
    return View(tensor, tuple(sorted(left).index(axis) for axis in left))


def _summed(b: Builder, view: View, term: str, wanted: str) -> tuple[View, str]:
    """The operand summed over the axes whose letters nobody wants."""
    axes = [axis for axis, letter in enumerate(term) if letter not in wanted]
    if not axes:
        return view, term
    return _without(b, view, axes), "".join(letter for letter in term if letter in wanted)


def _pair(b: Builder, left: tuple[View, str], right: tuple[View, str], later: str) -> tuple[View, str]:
    """The product of two operands, summed over the letters that only they have."""
    x, x_term = _summed(b, *left, right[1] + later)
    y, y_term = _summed(b, *right, x_term + later)
    shared = [letter for letter in x_term if letter in y_term]
    inner = [letter for letter in shared if letter not in later]
    if not inner:
        return _outer(b, (x, x_term), (y, y_term))
    batch = [letter for letter in shared if letter in later]
    rows, columns = ([letter for letter in term if letter not in shared] for term in (x_term, y_term))
    x3 = _grouped(b, x, x_term, [batch, rows, inner])
    y3 = _grouped(b, y, y_term, [batch, inner, columns])
    sizes = dict(zip(y_term, y.shape, strict=True)) | {
        letter: dim for letter, dim in zip(x_term, x.shape, strict=True) if dim != 1 or letter not in y_term
    }
    term = "".join([*batch, *rows, *columns])
    flat = product(b, x3, y3)
    return reshape_view(b, flat, tuple(sizes[letter] for letter in term)), term


def _outer(b: Builder, left: tuple[View, str], right: tuple[View, str]) -> tuple[View, str]:
    """Nothing is summed: a broadcast multiplication."""
    (x, x_term), (y, y_term) = left, right
    term = x_term + "".join(letter for letter in y_term if letter not in x_term)
    tensors = []
    for view, own in ((x, x_term), (y, y_term)):
        order = tuple(own.index(letter) for letter in term if letter in own)
        present = iter(order)
        sizes = [view.shape[next(present)] if letter in own else 1 for letter in term]
        tensors.append(b.reshape(store(b, view, order), tuple(sizes)))
    return View.of(b.binary("MUL", *tensors)), term


def _grouped(b: Builder, view: View, term: str, groups: list[list[str]]) -> View:
    """``view`` with the axes of each group made one."""
    order = tuple(term.index(letter) for group in groups for letter in group)
    moved = View(view.tensor, tuple(order.index(axis) for axis in view.order))
    dims = moved.shape
    sizes, at = [], 0
    for group in groups:
        part = dims[at : at + len(group)]
        at += len(group)
        known = is_static(part)
        sizes.append(int(np.prod(part)) if known else part[0] if len(part) == 1 else b.new_dim(("count", *part)))
    return reshape_view(b, moved, tuple(sizes))
