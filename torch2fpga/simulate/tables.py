# SPDX-License-Identifier: Apache-2.0
"""Integer function tables: one generator that feeds the quantised reference and the C++ headers.

Every table is computed in double precision and rounded halves up, then frozen as integers; the
headers ``hls/include/t2f/tables.hpp`` and ``activation_tables.hpp`` are written by
``python -m torch2fpga.simulate.tables`` and a test compares them with this module.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

#: segments of a table function for each unit of its argument
SEGMENTS_PER_UNIT = 64
FRACTION_BITS = 14  # of activation inputs and outputs


def _round(value: float) -> int:
    return math.floor(value + 0.5)


def _gelu(x: float) -> float:
    return 0.5 * x * (1.0 + math.erf(x / math.sqrt(2.0)))


def _gelu_tanh(x: float) -> float:
    return 0.5 * x * (1.0 + math.tanh(math.sqrt(2.0 / math.pi) * (x + 0.044715 * x**3)))


def _silu(x: float) -> float:
    return x / (1.0 + math.exp(-x))


FUNCTIONS: dict[str, Callable[[float], float]] = {
    "gelu": _gelu,
    "gelu_tanh": _gelu_tanh,
    "tanh": math.tanh,
    "relu": lambda x: max(x, 0.0),  # exact: its corner is a node
    "silu": _silu,
}
#: name -> the table covers [-limit, limit); beyond it the function is as good as its tails
LIMITS: dict[str, int] = {"gelu": 8, "gelu_tanh": 8, "tanh": 8, "relu": 8, "silu": 16}
#: name -> (left constant, right constant or None for the identity), real values
TAILS: dict[str, tuple[float, float | None]] = {
    "gelu": (0.0, None),
    "gelu_tanh": (0.0, None),
    "tanh": (-1.0, 1.0),
    "relu": (0.0, None),
    "silu": (0.0, None),
}


@lru_cache
def activation_table(name: str) -> tuple[int, ...]:
    """Node values of ``name`` on [-limit, limit], 14 fraction bits."""
    function, limit = FUNCTIONS[name], LIMITS[name]
    nodes = range(-limit * SEGMENTS_PER_UNIT, limit * SEGMENTS_PER_UNIT + 1)
    return tuple(_round(function(i / SEGMENTS_PER_UNIT) * 2**FRACTION_BITS) for i in nodes)


@lru_cache
def exp2_table() -> tuple[int, ...]:
    """2^(-i/256) for i = 0..255, scaled by 255 * 256 (the weight 255 before the shift by 8)."""
    return tuple(_round(255 * 256 * 2.0 ** (-i / 256)) for i in range(256))


@lru_cache
def reciprocal_table() -> tuple[int, ...]:
    """1/m at the centres of 512 segments of [1, 2), 16 fraction bits."""
    return tuple(_round(2**16 / (1 + (i + 0.5) / 512)) for i in range(512))


@lru_cache
def rsqrt_table() -> tuple[int, ...]:
    """1/sqrt(m) at the centres of 384 segments of [1, 4), 16 fraction bits."""
    return tuple(_round(2**16 / math.sqrt(1 + (i + 0.5) / 128)) for i in range(384))


@lru_cache
def sine_table() -> tuple[int, ...]:
    """sin(i pi / 512) for i = 0..257, 16 fraction bits: a quarter turn and the node behind it."""
    return tuple(_round(2**16 * math.sin(i * math.pi / 512)) for i in range(258))


def _array(name: str, ctype: str, values: tuple[int, ...]) -> str:
    lines = []
    for start in range(0, len(values), 12):
        lines.append("    " + ", ".join(str(v) for v in values[start : start + 12]) + ",")
    body = "\n".join(lines)
    return f"const {ctype} {name}[{len(values)}] = {{\n{body}\n}};\n"


def _function_struct(name: str) -> str:
    left, right = TAILS[name]
    scale = 2**FRACTION_BITS
    return (
        f"struct {name} {{\n"
        f"  static constexpr int32_t limit = {LIMITS[name] << FRACTION_BITS};\n"
        f"  static constexpr int32_t left = {_round(left * scale)};\n"
        f"  static constexpr int32_t right = {_round((right or 0.0) * scale)};\n"
        f"  static constexpr bool right_is_x = {'true' if right is None else 'false'};\n"
        f"  static int32_t table(int i) {{ return {name}_table[i]; }}\n"
        "};\n"
    )


def _function(name: str) -> str:
    return (
        f"// {name} on [-{LIMITS[name]}, {LIMITS[name]}], 14 fraction bits\n"
        + _array(f"{name}_table", "int32_t", activation_table(name))
        + "\n"
        + _function_struct(name)
    )


def _header(name: str, parts: list[str]) -> str:
    guard = f"T2F_{name.removesuffix('.hpp').upper()}_HPP"
    head = (
        "// SPDX-License-Identifier: Apache-2.0\n"
        "// Written by python -m torch2fpga.simulate.tables; do not edit.\n"
        f"#ifndef {guard}\n#define {guard}\n\n#include <cstdint>\n\nnamespace t2f {{\n"
    )
    return "\n".join([head, *parts, "}  // namespace t2f\n#endif\n"])


def headers() -> dict[str, str]:
    """The generated headers of ``t2f``: name -> text."""
    arithmetic = [
        "// 2^(-i / 256) * 255 * 256\n" + _array("exp2_table", "uint16_t", exp2_table()),
        "// 1 / m on [1, 2), 16 fraction bits\n" + _array("reciprocal_table", "uint32_t", reciprocal_table()),
        "// 1 / sqrt(m) on [1, 4), 16 fraction bits\n" + _array("rsqrt_table", "uint32_t", rsqrt_table()),
        "// sin(i * pi / 512), 16 fraction bits\n" + _array("sine_table", "uint32_t", sine_table()),
    ]
    parts = {"tables.hpp": arithmetic, "activation_tables.hpp": [_function(name) for name in FUNCTIONS]}
    return {name: _header(name, texts) for name, texts in parts.items()}


#: where the headers lie in the package
FOLDER = Path(__file__).resolve().parent.parent / "hls" / "include" / "t2f"


if __name__ == "__main__":
    for name, text in headers().items():
        (FOLDER / name).write_text(text)
        print(f"wrote {name}")
