# SPDX-License-Identifier: Apache-2.0
"""Linear: the multiplier array against its reference, kept and streamed weights; taken and refused."""

from __future__ import annotations

import ctypes
from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.stage_bench import MAX_BATCH, MAX_SEQ, RUNS, SHAPES, Bench, Library
from tests.tiny import BATCH, SEQ, WIDTH, Inside, cxx_cache, float_error, histogram, lowered, refused, rows
from torch2fpga.design import Design, Layout, Shape, Stream
from torch2fpga.errors import DesignError
from torch2fpga.lower import linear as linear_file
from torch2fpga.lower.linear import MatmulStage, matmul_exact, pad_channels, quantise_weight
from torch2fpga.simulate.build import build_library

__all__ = ["cxx_cache"]
#: channels in and out: heads of 7 and plain rows, not square; fewer blocks than a tile has rows;
#: heads of 24
LAYOUTS = (
    (Layout(3, 7), Layout(1, 40)),
    (Layout(1, 40), Layout(3, 7)),
    (Layout(1, 5), Layout(1, 20)),
    (Layout(1, 70), Layout(2, 24)),
)


@dataclass(frozen=True)
class _Case:
    """A stage and its sizes."""

    shape: tuple[int, int]
    layouts: tuple[Layout, Layout]
    keep: str = "step"
    columns: int = 16
    steps: int = 2
    one_row: bool = False

    def bench(self) -> Bench:
        stage = MatmulStage(
            "fc", "fc", "loop", self.steps, ("x", "w"), ("y",), one_row=self.one_row,
            layout_in=self.layouts[0], layout_out=self.layouts[1], columns=self.columns, keep=self.keep,
        )  # fmt: skip
        streams = (
            Stream("x", "rows", "int8", self.layouts[0], self.one_row),
            Stream("w", "words"),
            Stream("y", "rows", "int32", self.layouts[1], self.one_row),
        )
        return Bench(stage, streams, Shape(*self.shape, MAX_BATCH, MAX_SEQ))


#: every place of the weights, every width and every tile
CASES = [
    *(
        _Case(shape, layouts, keep)
        for shape in SHAPES
        for layouts in LAYOUTS
        for keep in ("step", "streamed")
    ),
    *(
        _Case((16, t), layouts, "step", c, 3)
        for t in (1, 2, 3, 4, 8)
        for c in (4, 8)
        for layouts in LAYOUTS[::2]
    ),
    *(
        _Case((16, t), LAYOUTS[3], keep, c, 3)
        for t, c in ((3, 4), (8, 16))
        for keep in ("resident", "streamed")
    ),
    _Case((8, 8), LAYOUTS[0], "resident", 8, 3),
    *(_Case((16, 4), LAYOUTS[1], keep, 4, 3, True) for keep in ("step", "resident", "streamed")),
]


def _bench(shape: tuple[int, int], layouts: tuple[Layout, Layout], keep: str) -> Bench:
    return _Case(shape, layouts, keep).bench()


@pytest.fixture(scope="module")
def library() -> Library:
    return Library([case.bench() for case in CASES])


def _weights(bench: Bench, weights: list[Tensor], batch: int, seq: int) -> bytes:
    """Words as the weight port delivers them: once a step, or again for every tile."""
    stage = bench.stage
    assert isinstance(stage, MatmulStage)
    tiles = batch * -(-seq // stage.rows_a_tile(bench.design)) if stage.streamed else 1
    return b"".join(stage.weight_image({"weight": w}, bench.design) * tiles for w in weights)


def _run(library: Library, index: int, xs: list[Tensor], weights: list[Tensor]) -> int:
    batch, seq = xs[0].shape[:2]
    words = {"w": _weights(library.benches[index], weights, batch, seq)}
    data = [{"weight": w} for w in weights]
    return library.mismatches(index, [[x, None] for x in xs], batch, seq, data, words)  # type: ignore[list-item]


@pytest.mark.gxx
@pytest.mark.parametrize(("batch", "seq"), RUNS)
@pytest.mark.parametrize("index", range(len(CASES)))
def test_array_equals_reference(library: Library, index: int, batch: int, seq: int) -> None:
    case = CASES[index]
    layout_in, layout_out = case.layouts
    generator = torch.Generator().manual_seed(index)
    shape = (batch, 1 if case.one_row else seq, layout_in.channels)
    steps = range(case.steps)
    xs = [torch.randint(-127, 128, shape, generator=generator, dtype=torch.int32) for _ in steps]
    size = (layout_out.channels, layout_in.channels)
    weights = [torch.randint(-127, 128, size, generator=generator, dtype=torch.int8) for _ in steps]
    assert _run(library, index, xs, weights) == 0


@pytest.mark.gxx
@pytest.mark.parametrize("x", [-127, 127])
@pytest.mark.parametrize("w", [-127, 127])
def test_extremes(library: Library, x: int, w: int) -> None:
    for index, case in enumerate(CASES):
        layout_in, layout_out = case.layouts
        rows = 1 if case.one_row else 3
        xs = [torch.full((1, rows, layout_in.channels), x, dtype=torch.int32)] * case.steps
        weights = [torch.full((layout_out.channels, layout_in.channels), w, dtype=torch.int8)] * case.steps
        assert _run(library, index, xs, weights) == 0


@pytest.mark.parametrize(
    ("keep", "columns", "layouts", "load", "reduce"),
    [
        # 11 rows in tiles of 4, 4 and 3, a weight block of 16 by 16 is four words (iterations by hand):
        # 3 blocks in and out; an output block takes 4 places, one more than it has blocks to add up
        ("step", 16, LAYOUTS[0], 2 * (36 - 1 + 10 + 2), 3 * 3 * 4 + 11),
        ("step", 4, LAYOUTS[0], 2 * (36 - 1 + 10 + 2), 3 * 3 * 4 * 4 + 11),
        ("resident", 8, LAYOUTS[0], 72 - 1 + 10 + 2, 3 * 3 * 2 * 4 + 11),
        ("streamed", 16, LAYOUTS[0], 0, 3 * 3 * 4 * 4 + 11),
        # 5 blocks in, 4 out (two heads of two blocks)
        ("step", 16, LAYOUTS[3], 2 * (80 - 1 + 10 + 2), 3 * 4 * 5 + 11),
        ("step", 8, LAYOUTS[3], 2 * (80 - 1 + 10 + 2), 3 * 4 * 2 * 5 + 11),
    ],
)
def test_cycles_by_hand(
    keep: str, columns: int, layouts: tuple[Layout, Layout], load: int, reduce: int
) -> None:
    bench = _Case((16, 4), layouts, keep, columns).bench()
    depths = {"LOAD": 10, "JOIN": 20, "REDUCE": 30}
    want = load + 2 * 2 * (reduce - 1 + 30 + 2)  # two steps of two sequences
    assert bench.stage.cycles(bench.design, 2, 11, depths.__getitem__) == want
    joined = 2 * 2 * 11 * layouts[0].blocks(16) - 1 + 20 + 2
    assert bench.stage.front_cycles(bench.design, 2, 11, depths.__getitem__) == joined
    row = replace(bench.stage, one_row=True)
    assert row.cycles(bench.design, 2, 11, depths.__getitem__) == row.cycles(
        bench.design, 2, 1, depths.__getitem__
    )


def test_steady_state_is_the_multiplications() -> None:
    """768 to 768 channels in tiles of 4: a tile costs its products and four iterations."""
    stage = replace(_Case((16, 4), (Layout(1, 768), Layout(1, 768))).bench().stage, steps=1)
    design = Design("d", Shape(16, 4, 1, 512), (stage,), {})
    a, b = (stage.cycles(design, 1, rows, lambda label: 20) for rows in (256, 512))
    assert (b - a) / 64 == 48 * 48 + 4


@pytest.mark.parametrize(("fields", "message"), [({"columns": 12}, "columns"), ({"keep": "hbm"}, "keep")])
def test_impossible_arrays_are_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(DesignError, match=message):
        replace(_bench((16, 4), LAYOUTS[0], "step").stage, **fields)


def test_columns_of_less_than_a_word_are_refused() -> None:
    bench = _Case((8, 4), LAYOUTS[0], "step", 4).bench()
    with pytest.raises(DesignError, match="no 64-byte word"):
        bench.stage.config(bench.design)


@pytest.mark.parametrize(
    ("keep", "columns", "one_row", "width", "products", "dsp"),
    [("step", 16, False, 16, 1024, 512), ("step", 4, False, 4, 256, 128),
     ("resident", 8, False, 8, 512, 256), ("streamed", 16, False, 4, 256, 128),
     ("step", 16, True, 16, 256, 256), ("streamed", 8, True, 4, 64, 64)],
)  # fmt: skip
def test_array_width(keep: str, columns: int, one_row: bool, width: int, products: int, dsp: int) -> None:
    bench = _Case((16, 4), LAYOUTS[0], keep, columns, 2, one_row).bench()
    stage, design = bench.stage, bench.design
    assert isinstance(stage, MatmulStage)
    assert (stage.width(design), stage.products(design)) == (width, products)
    assert 0 <= stage.cost(design).dsp - dsp <= 8  # sizes of a launch are products too


@pytest.mark.gxx
def test_one_wrong_weight_is_seen(library: Library) -> None:
    bench = library.benches[0]
    x = torch.ones(1, 1, 21, dtype=torch.int32)
    good = torch.ones(40, 21, dtype=torch.int8)
    bad = good.clone()
    bad[39, 20] = 2
    words = {"w": _weights(bench, [good, bad], 1, 1)}
    assert library.mismatches(0, [[x, None], [x, None]], 1, 1, [{"weight": good}] * 2, words) == 1  # type: ignore[list-item]


@pytest.mark.parametrize("width", [7, 1024, 1025, 3072])
def test_float_products_are_exact(width: int) -> None:
    x = torch.full((2, width), 127, dtype=torch.int32)
    x[1] = -127
    weight = torch.full((3, width), 127, dtype=torch.int8)
    weight[1, ::2] = -127
    assert torch.equal(matmul_exact(x, weight).long(), x.long() @ weight.long().t())


def test_weight_quantisation_is_symmetric_per_channel() -> None:
    spread = torch.tensor([[1e-3], [1], [9], [1], [0]])
    weight = torch.randn(5, 21, generator=torch.Generator().manual_seed(0)) * spread
    q, scale = quantise_weight(weight, torch.ones(21, dtype=torch.float64))
    assert q.abs().amax(1).tolist() == [127, 127, 127, 127, 0]
    assert torch.all((q.double() * scale[:, None] - weight.double()).abs() <= scale[:, None] * 0.5001)


def test_padding_goes_behind_every_group() -> None:
    padded = pad_channels(torch.arange(1, 22), Layout(3, 7), 8, 0)
    assert padded.reshape(3, 8)[:, 7].tolist() == [0, 0, 0]
    assert padded.reshape(3, 8)[:, :7].reshape(-1).tolist() == list(range(1, 22))


def test_large_weights_are_streamed(monkeypatch: pytest.MonkeyPatch) -> None:
    stage = replace(_bench((8, 1), LAYOUTS[0], "step").stage, keep="")
    assert isinstance(stage, MatmulStage)
    assert (stage.template, stage.weights_kept) == ("matmul", "step")
    monkeypatch.setattr(linear_file, "KEEP_BYTES", 21 * 40 - 1)
    assert (stage.template, stage.weights_kept) == ("matmul_streamed", "streamed")
    assert replace(stage, keep="resident").template == "matmul"


class _Addmm(nn.Module):
    """GPT-2's Conv1D: the weight is (in, out)."""

    def __init__(self, **options: float) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(rows(WIDTH, 40)), nn.Parameter(rows(40))
        self.options = options

    def forward(self, x: Tensor) -> Tensor:
        flat = torch.addmm(self.bias, x.view(-1, WIDTH), self.weight, **self.options)
        return flat.view(*x.shape[:2], 40)


class _Matmul(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(rows(WIDTH, 40))

    def forward(self, x: Tensor) -> Tensor:
        return x @ self.weight


@pytest.mark.parametrize(
    "model", [nn.Linear(WIDTH, 40), nn.Linear(WIDTH, 40, bias=False), _Addmm(), _Matmul()], ids=str
)
def test_taken(model: nn.Module) -> None:
    inputs = (rows(BATCH, SEQ, WIDTH),)
    assert histogram(lowered(model, inputs)[0].graph) == {"linear": 1}
    assert float_error(model, inputs) <= 1e-5


class _Mixer(nn.Module):
    """A linear over tokens."""

    def __init__(self) -> None:
        super().__init__()
        self.tokens = nn.Linear(SEQ, SEQ)

    def forward(self, x: Tensor) -> Tensor:
        return self.tokens(x.transpose(1, 2)).transpose(1, 2)


def test_token_mixing_is_refused() -> None:
    refused(_Mixer(), (rows(BATCH, SEQ, WIDTH),), "tokens", "is not exactly the channels")


def test_square_token_mixing_is_refused() -> None:
    """Sizes alone would not tell: as many tokens as channels."""
    refused(_Mixer(), (rows(BATCH, SEQ, SEQ),), "tokens", "is not exactly the channels")


def test_other_addmm_is_refused() -> None:
    refused(_Addmm(alpha=2.0), (rows(BATCH, SEQ, WIDTH),), "", "alpha or beta other than 1")


def test_computed_weight_is_refused() -> None:
    model = Inside(lambda x: nn.functional.linear(x, x))
    refused(model, (rows(3, WIDTH),), "part", "the weight must be a constant matrix")


_ONE_TILE = """
#include <cstdio>
#include <exception>
#include "t2f/matmul.hpp"
struct Config {
  static constexpr int lanes = 16, tile = 4, columns = 8, in_blocks = 5, out_blocks = 3, steps = 1;
  static constexpr int max_batch = 1, max_seq = 8;
  static constexpr bool resident = false;
};
// Rows that left when the array asked for the second tile, which never comes; -1 if it did not ask.
template <typename Array>
int left(Array array) {
  hls::stream<t2f::tile_block<4, 16>> tiles;
  hls::stream<t2f::word> weights;
  hls::stream<t2f::vec<int32_t, 16>> y;
  for (int i = 0; i < 5; ++i) tiles.write({});
  for (int i = 0; i < 2 * 3 * 5 * 4; ++i) weights.write({});
  try {
    array(tiles, weights, y);
  } catch (const std::exception &) {
    return static_cast<int>(y.size());
  }
  return -1;
}
extern "C" int kept() {
  return left([](auto &x, auto &w, auto &y) { t2f::matmul<Config>(x, w, y, 1, 8); });
}
extern "C" int streamed() {
  return left([](auto &x, auto &w, auto &y) { t2f::matmul_streamed<Config>(x, w, y, 1, 8); });
}
"""


@pytest.mark.gxx
@pytest.mark.parametrize("template", ["kept", "streamed"])
def test_a_tile_has_left_before_the_next_is_asked_for(template: str) -> None:
    """Where the input behind a tile depends on its output, anything else would be a deadlock."""
    library = ctypes.CDLL(str(build_library({"tile.cpp": _ONE_TILE})))
    assert getattr(library, template)() == 3 * 4
