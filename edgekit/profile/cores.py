"""What the name of a board tells about its processor: facts that decide which kernels an engine has for it."""

from __future__ import annotations

import re

__all__ = ["half_precision", "in_order", "thirty_two_bit"]

#: cores and chips of ARMv8.2 and later, on which engines use float16 arithmetic (vendors' core manuals)
_HALF = re.compile(
    r"A55|A65|A7[5-8]|A5[12]0|A7[12][05]|\bX[1-4]\b|Cortex-X|Neoverse|TSV110|KunPeng ?920|Carmel|Xavier|Orin|Apple M\d"
    r"|MacBook|\bM[1-5]\b|Apple A1[1-9]|Snapdragon (?:8(?:45|5\d|65|7\d|88)|7\d\d|6[79]\d|8 Gen|7 Gen|6 Gen|4 Gen|X)"
    r"|RK35\d\d|BCM2712|Raspberry Pi 5|Dimensity|Cobalt|D\d+ps|Graviton ?[2-9]|Ampere Altra|T527|Exynos (?:98|99|[12])"
    r"|Kirin 9[89]|Kirin 9000|Tensor G\d|i\.MX ?9|Pixel [3-9]", re.IGNORECASE)
_SINGLE = re.compile(
    r"A5\b|A7\b|A8\b|A9\b|A15\b|A17\b|A35|A53|A57|A7[23]|Denver|FTC66|FT-2000|BCM2(?:8|710|711)"
    r"|Raspberry Pi (?:[1-4]|Z)|Snapdragon (?:[24]\d\d|6[0-6]\d|8[0-3]\d)"
    r"|RK3[0-4]\d\d|i\.MX ?[5-8]|H616|QRB2210|TX2|Jetson Nano|ARMv7",
    re.IGNORECASE)
_SLOW_CORES = re.compile(
    r"A5\b|(?<!Apple )A7\b|A35|A53|A55|A510|A520|BCM2(?:835|836|837|710)|Raspberry Pi (?:[1-3]|Z)"
    r"|Snapdragon [24][0-3]\d|RK3566|RK3568|RK3328|RK3228|H616|T527|QRB2210|S905|i\.MX ?[7-9]", re.IGNORECASE)
_FAST_CORES = re.compile(
    r"A15\b|A17\b|A57|A7[2-8]|A7[12][05]|\bX[1-4]\b|Cortex-X|Neoverse|Kyro|Kryo|Denver|RK3588|Apple|Carmel|Orin",
    re.IGNORECASE)
_ARM32 = re.compile(r"A5\b|(?<!Apple )A7\b|A8\b|A9\b|A15\b|A17\b|ARMv7|i\.MX ?[67]", re.IGNORECASE)


def half_precision(device: str) -> float:
    """1 where the processor has float16 arithmetic, 0 where it has not, 0.5 where the name does not tell.

    Of the names of several cores one that has it decides: the clusters of one chip have the same instructions.
    """
    if _HALF.search(device):
        return 1.0
    return 0.0 if _SINGLE.search(device) else 0.5


def in_order(device: str, powersave: str) -> bool:
    """Whether one thread runs on a core that computes in order: the only kind, or the slow cluster (powersave 1)."""
    slow, fast = _SLOW_CORES.search(device), _FAST_CORES.search(device)
    return bool(slow) and (powersave == "1" or not fast)


def thirty_two_bit(device: str) -> bool:
    """Whether the cores know 32-bit instructions only."""
    return bool(_ARM32.search(device))
