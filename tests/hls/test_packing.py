# SPDX-License-Identifier: Apache-2.0
"""The packed multipliers of the stage library against plain products, over all operand values.

Once with the slice's words emulated as int64, and once as the library spells them: with plain
integers, and with AMD's open ap_int as for synthesis.
"""

from __future__ import annotations

import subprocess
from pathlib import Path

import numpy as np
import pytest

from tests.hls.amd_headers import copy_headers, synthesis_flags
from torch2fpga.emit.check import check_project
from torch2fpga.plan.packing import RECIPES, packed_bytes
from torch2fpga.simulate.build import INCLUDE, SIM

pytestmark = pytest.mark.gxx
needs_ap_int = pytest.mark.needs("da4ml")

SOURCE = Path(__file__).parent / "packing_cases.cpp"
FLAGS = ["-std=c++17", "-O1", "-Wall", "-Wextra", "-Werror", "-Wno-unknown-pragmas", "-Wno-unused-label",
         f"-I{INCLUDE}", f"-I{SIM}"]  # fmt: skip
HEADERS = ("core.hpp", "dataflow.hpp", "packed.hpp", "packed4.hpp")


def _built(folder: Path, flags: list[str]) -> Path:
    program = folder / "cases"
    command = ["g++", *FLAGS, *flags, str(SOURCE), "-o", str(program)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-6000:]
    return program


def _output(program: Path, mode: str) -> str:
    return subprocess.run([program, mode], capture_output=True, text=True, timeout=300, check=True).stdout


def _counts(output: str) -> dict[str, tuple[int, int]]:
    """Name of a case -> (compared, different)."""
    rows = [line.split() for line in output.splitlines() if not line.startswith("field")]
    return {name: (int(compared), int(different)) for name, compared, different in rows}


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return _built(tmp_path_factory.mktemp("plain"), [])


@pytest.fixture(scope="module")
def amd(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Include paths of ap_int.h."""
    return copy_headers(tmp_path_factory.mktemp("include"))


@pytest.fixture(scope="module")
def synthesis(tmp_path_factory: pytest.TempPathFactory, amd: list[Path]) -> Path:
    return _built(tmp_path_factory.mktemp("synthesis"), synthesis_flags(amd))


def _overflowing(recipe: str, chain: int) -> int:
    """Choices of operands of which ``chain`` equal products leave a field, by counting."""
    r = RECIPES[recipe]
    a, b = (np.arange(o.least, o.greatest + 1) for o in (r.a, r.b))
    grids = np.ix_(*[a] * len(r.a.shifts), *[b] * len(r.b.shifts))
    values, others = grids[: len(r.a.shifts)], grids[len(r.a.shifts) :]
    products = [x * y for x in values for y in others]
    outside = [
        (chain * product < -(1 << (width - 1))) | (chain * product >= 1 << (width - 1))
        for product, width in zip(products, r.widths, strict=True)
    ]
    size = np.broadcast_shapes(*(mask.shape for mask in grids))
    return int(np.broadcast_to(np.logical_or.reduce(np.broadcast_arrays(*outside)), size).sum())


def test_all_operand_values_in_words_of_the_slice(plain: Path) -> None:
    """Exact up to the limit; one product later wrong exactly where a field overflows."""
    counts = _counts(_output(plain, "emulated"))
    full, symmetric, nibbles = 2**24, 2**16 * 255, 2**16
    assert counts == {
        "w8a8-full/1": (full, 0),
        "w8a8-full/7": (full, 0),
        "w8a8-full/8": (full, 256),  # -128 * -128 with every x1
        "w8a8/8": (symmetric, 0),
        "w8a8/9": (symmetric, _overflowing("w8a8", 9)),
        "u8a8/1": (full, 0),
        "u8a8/4": (full, 0),
        "u8a8/5": (full, _overflowing("u8a8", 5)),
        "w4a8/1": (nibbles, 0),
        "w4a8/127": (nibbles, 0),
        "w4a8/2047": (nibbles, 0),
        "w4a8/2048": (nibbles, 16),  # -8 * -128 with every w1
        "w4a4/1": (nibbles, 0),
        "w4a4/15": (nibbles, 0),
        "w4a4/16": (nibbles, _overflowing("w4a4", 16)),
        "w4a4-unsigned/1": (nibbles, 0),
        "w4a4-unsigned/8": (nibbles, 0),
        "w4a4-unsigned/9": (nibbles, _overflowing("w4a4-unsigned", 9)),
    }
    assert _overflowing("w8a8-full", 8) == 256
    assert _overflowing("w4a8", 2048) == 16
    beyond = {"w8a8": 9, "u8a8": 5, "w4a4": 16, "w4a4-unsigned": 9}
    assert all(_overflowing(name, chain) > 0 for name, chain in beyond.items())


SPELLED = {
    "w8a8-full/all": (2**24, 0),
    "w8a8/8": (100_000, 0),
    "w8a8/16": (100_000, 0),
    "w8a8-full/8": (100_000, 0),
    "w8a8-full/16": (100_000, 0),
    "u8a8/all": (2**24, 0),
    "u8a8/4": (100_000, 0),
    "u8a8/7": (100_000, 0),
    "u8a8/16": (100_000, 0),
    "u8a8/short": (100_000, 0),
    "slice": (100_000, 0),
    "w4a8": (2**16, 0),
    "w4a8/2047": (16, 0),
    "w4a8/2048": (16, 2),  # w0 = -8 and x = -128, with both corners of w1
    "w4a4": (2**17, 0),
    "w4a4-unsigned": (2**17, 0),
}


def test_the_plain_spelling_is_exact(plain: Path) -> None:
    assert _counts(_output(plain, "spelled")) == SPELLED


@needs_ap_int
def test_the_synthesis_spelling_is_exact(plain: Path, synthesis: Path) -> None:
    """The same results too where a chain of W4A8 is too long and its fields are wrong."""
    output = _output(synthesis, "spelled")
    assert _counts(output) == SPELLED
    assert output == _output(plain, "spelled")
    assert output.count("field ") == 16


@needs_ap_int
def test_a_chain_beyond_its_limit_is_wrong(synthesis: Path) -> None:
    assert _counts(_output(synthesis, "beyond")) == {
        "w8a8/8": (256 * 255, 0),
        "w8a8/9": (256 * 255, _overflowing("w8a8", 9) // 256),
        "w8a8-full/7": (2**16, 0),
        "w8a8-full/8": (2**16, 1),
        "u8a8/4": (2**16, 0),
        "u8a8/5": (2**16, _overflowing("u8a8", 5) // 256),
        "w4a4/16": (2**16, _overflowing("w4a4", 16)),
        "w4a4-unsigned/9": (2**16, _overflowing("w4a4-unsigned", 9)),
    }


def test_bytes_hold_the_weights_that_were_packed(plain: Path) -> None:
    rows = np.array([[int(x) for x in line.split()] for line in _output(plain, "bytes").splitlines()])
    assert rows.shape == (256, 3)
    assert len({(w0, w1) for _, w0, w1 in rows.tolist()}) == 256
    assert np.array_equal(packed_bytes(rows[:, 1:]), rows[:, 0])


def _compiled(code: str) -> str:
    """Errors of g++ for a function's body."""
    text = '#include "t2f/packed4.hpp"\nusing namespace t2f;\n'
    text += "void f(vec<int8_t, 16> x, uint8_t (&p)[16], int8_t (&w)[16], int32_t s, int32_t (&q)[2][2]) {\n"
    text += f"(void)x; (void)p; (void)w; (void)s; (void)q;\n{code}\n}}\n"
    command = ["g++", *FLAGS, "-fsyntax-only", "-x", "c++", "-"]
    return subprocess.run(command, input=text, capture_output=True, text=True, timeout=60).stderr


def test_limits_agree_with_the_recipes() -> None:
    limits = {
        "w8a8_chain(-127)": "w8a8",
        "w8a8_chain(-128)": "w8a8-full",
        "u8a8_chain": "u8a8",
        "w4a8_chain": "w4a8",
        "w4a4_chain(true)": "w4a4",
        "w4a4_chain(false)": "w4a4-unsigned",
    }
    assert set(limits.values()) == set(RECIPES)
    equal = [f'static_assert({code} == {RECIPES[name].chain}, "");' for code, name in limits.items()]
    longest = """
    dot_pair<16, 8, -127>(x, x, w, s, s);
    dot_pair<16, 7, -128>(x, x, w, s, s);
    weigh_pair<16, 4>(p, p, w, s, s);
    dot_quad<16, 8, false>(x, x, w, q);
    dot_quad<16, 15, true>(x, x, w, q);
    w4a8_sum<2047> sum = {0};
    accumulate_w4a8<16>(x, w, sum);
    """
    assert _compiled("\n".join(equal) + longest) == ""


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("dot_pair<16, 9, -127>(x, x, w, s, s);", "W8A8: at most 8 accumulations, 7 with weights of -128"),
        ("dot_pair<16, 8, -128>(x, x, w, s, s);", "W8A8: at most 8 accumulations, 7 with weights of -128"),
        ("dot_pair<16, 8, -1>(x, x, w, s, s);", "symmetric or full-range int8"),
        ("weigh_pair<16, 5>(p, p, w, s, s);", "U8A8: at most 4 accumulations"),
        ("w4a8_sum<2048> sum = {0}; (void)sum;", "W4A8: at most 2,047 accumulations"),
        ("w4a8_sum<8> sum = {0}; accumulate_w4a8<16>(x, w, sum);", "one call is longer than the chain"),
        ("dot_quad<16, 9, false>(x, x, w, q);", "W4A4: at most 8 accumulations, 15 with signed activations"),
        ("dot_quad<16, 16, true>(x, x, w, q);", "W4A4: at most 8 accumulations, 15 with signed activations"),
    ],
)
def test_a_chain_beyond_its_limit_does_not_compile(code: str, message: str) -> None:
    assert f"static assertion failed: {message}" in _compiled(code)


@needs_ap_int
def test_the_checker_accepts_the_synthesis_spelling(amd: list[Path]) -> None:
    """The library's own check has no ap_int.h and sees the plain spelling only."""
    files = {f"t2f/{name}": (INCLUDE / "t2f" / name).read_text() for name in HEADERS}
    files["kernels/empty.cpp"] = '#include "t2f/packed4.hpp"\n'

    def rules(text: str) -> set[tuple[str, str]]:
        found = check_project({**files, "t2f/packed.hpp": text}, include_dirs=amd)
        return {(item.path, item.rule) for item in found}

    text = files["t2f/packed.hpp"]
    # The project has no kernel, and other code may not include ap_int.h.
    expected = {("kernels/empty.cpp", "top"), ("t2f/packed.hpp", "include")}
    assert rules(text) == expected
    broken = text.replace("variable = product op", "variable = produkt op")
    assert broken != text
    assert rules(broken) - expected == {("t2f/packed.hpp", "pragma-name")}
