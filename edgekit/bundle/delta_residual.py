"""One entry of a delta: where its bytes are predicted from, and how it departs from the prediction.

The prediction copies stretches of an entry of the base (zeros where there is none). The departure is taken in words of
1, 2 or 4 bytes: a bit for each word that says whether it differs, and the words that do, as planes of equal
significance, because the sign and exponent bytes of weights compress and the low bytes of the mantissa do not. At 90 %
zeros nine words in ten cost a fraction of a bit.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from typing import Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from edgekit.errors import BadBundle

__all__ = ["MODES", "Mode", "Stretch", "decode", "encode", "predict"]

Bytes: TypeAlias = npt.NDArray[np.uint8]
Mode: TypeAlias = Literal["replace", "xor", "subtract"]
Stretch: TypeAlias = tuple[int, int]
"""(length in bytes, offset in the base's entry; -1 for zeros)."""

MODES: tuple[Mode, ...] = ("replace", "xor", "subtract")
WORDS = (1, 2, 4)
_LEVEL = 9


def predict(base: bytes, stretches: Sequence[Stretch]) -> Bytes:
    """The bytes that the stretches, one after the other, take from ``base``. Raises BadBundle when one is outside."""
    source = np.frombuffer(base, np.uint8)
    found = np.zeros(sum(length for length, _ in stretches), np.uint8)
    at = 0
    for length, offset in stretches:
        if offset >= 0:
            if offset + length > len(source):
                raise BadBundle(f"A stretch of {length} bytes from {offset} on leaves the base's {len(source)} bytes.")
            found[at:at + length] = source[offset:offset + length]
        at += length
    return found


def encode(new: bytes, predicted: Bytes, word: int, mode: Mode) -> bytes:
    """The departure of ``new`` from ``predicted`` (of the same length), as one zlib stream."""
    wanted, guess = _words(np.frombuffer(new, np.uint8), word), _words(predicted, word)
    changed = wanted != guess
    values = _forward(wanted[changed], guess[changed], mode)
    planes = np.ascontiguousarray(values.view(np.uint8).reshape(-1, word).T)
    return zlib.compress(np.packbits(changed).tobytes() + planes.tobytes(), _LEVEL)


def decode(packed: bytes, predicted: Bytes, word: int, mode: Mode) -> bytes:
    """The entry that ``encode`` was given. Raises BadBundle when ``packed`` is not exactly such a stream.

    Never unpacks more than the entry can need, however the stream was made.
    """
    guess = _words(predicted, word)
    mask_bytes = (len(guess) + 7) // 8
    plain = _inflate(packed, mask_bytes + len(guess) * word)
    if len(plain) < mask_bytes:
        raise BadBundle("A part of the delta ends early.")
    bits = np.unpackbits(np.frombuffer(plain, np.uint8, mask_bytes))
    if bits[len(guess):].any():
        raise BadBundle("A part of the delta marks words behind its end.")
    changed = bits[:len(guess)].astype(bool)
    count = int(np.count_nonzero(changed))
    if len(plain) != mask_bytes + count * word:
        raise BadBundle(f"A part of the delta has {len(plain) - mask_bytes} bytes for {count} changed words.")
    planes = np.frombuffer(plain, np.uint8, count * word, mask_bytes).reshape(word, count)
    values = np.ascontiguousarray(planes.T).view(_dtype(word)).reshape(count)
    made = guess.copy()
    made[changed] = _backward(values, guess[changed], mode)
    return made.tobytes()[:len(predicted)]


def _inflate(packed: bytes, most: int) -> bytes:
    stream = zlib.decompressobj()
    try:
        plain = stream.decompress(packed, most + 1)
    except zlib.error as error:
        raise BadBundle(f"A part of the delta cannot be unpacked: {error}.") from error
    if len(plain) > most or not stream.eof or stream.unused_data:
        raise BadBundle("A part of the delta unpacks to another size than the entry can need.")
    return plain


def _dtype(word: int) -> np.dtype[np.unsignedinteger[npt.NBitBase]]:
    return np.dtype(f"<u{word}")


def _words(data: Bytes, word: int) -> npt.NDArray[np.unsignedinteger[npt.NBitBase]]:
    """``data`` as words, with zeros behind the end."""
    padded = data if len(data) % word == 0 else np.concatenate([data, np.zeros(-len(data) % word, np.uint8)])
    return np.ascontiguousarray(padded).view(_dtype(word))


def _forward(
    new: npt.NDArray[np.unsignedinteger[npt.NBitBase]], guess: npt.NDArray[np.unsignedinteger[npt.NBitBase]],
    mode: Mode,
) -> npt.NDArray[np.unsignedinteger[npt.NBitBase]]:
    if mode == "xor":
        return np.bitwise_xor(new, guess)
    return np.subtract(new, guess) if mode == "subtract" else new  # subtraction wraps around


def _backward(
    values: npt.NDArray[np.unsignedinteger[npt.NBitBase]], guess: npt.NDArray[np.unsignedinteger[npt.NBitBase]],
    mode: Mode,
) -> npt.NDArray[np.unsignedinteger[npt.NBitBase]]:
    if mode == "xor":
        return np.bitwise_xor(values, guess)
    return np.add(guess, values) if mode == "subtract" else values
