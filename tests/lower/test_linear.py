# SPDX-License-Identifier: Apache-2.0
"""Linear: the multiplier array against its reference, kept and streamed weights; taken and refused."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from tests.stage_bench import MAX_BATCH, MAX_SEQ, RUNS, SHAPES, Bench, Library
from tests.tiny import BATCH, SEQ, WIDTH, Inside, cxx_cache, float_error, histogram, lowered, refused, rows
from torch2fpga.design import Layout, Shape, Stream
from torch2fpga.lower import linear as linear_file
from torch2fpga.lower.linear import MatmulStage, matmul_exact, pad_channels, quantise_weight

__all__ = ["cxx_cache"]
#: channels in and out: heads of 7 and plain rows, not square; fewer blocks than a tile has rows
LAYOUTS = (
    (Layout(3, 7), Layout(1, 40)),
    (Layout(1, 40), Layout(3, 7)),
    (Layout(1, 5), Layout(1, 20)),
)
CASES = [(shape, layouts, streamed) for shape in SHAPES for layouts in LAYOUTS for streamed in (False, True)]


class _Streamed(MatmulStage):
    streamed = True  # type: ignore[assignment]


def _bench(shape: tuple[int, int], layouts: tuple[Layout, Layout], streamed: bool) -> Bench:
    kind = _Streamed if streamed else MatmulStage
    stage = kind("fc", "fc", "loop", 2, ("x", "w"), ("y",), layout_in=layouts[0], layout_out=layouts[1])
    streams = (
        Stream("x", "rows", "int8", layouts[0]),
        Stream("w", "words"),
        Stream("y", "rows", "int32", layouts[1]),
    )
    return Bench(stage, streams, Shape(*shape, MAX_BATCH, MAX_SEQ))


@pytest.fixture(scope="module")
def library() -> Library:
    return Library([_bench(*case) for case in CASES])


def _weights(bench: Bench, weights: list[Tensor], batch: int, seq: int) -> bytes:
    """Words as the weight port delivers them: once a step, or again for every tile."""
    stage = bench.stage
    assert isinstance(stage, MatmulStage)
    tiles = batch * -(-seq // bench.shape.tile) if stage.streamed else 1
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
    _, (layout_in, layout_out), _ = CASES[index]
    generator = torch.Generator().manual_seed(index)
    shape = (batch, seq, layout_in.channels)
    xs = [torch.randint(-127, 128, shape, generator=generator, dtype=torch.int32) for _ in range(2)]
    size = (layout_out.channels, layout_in.channels)
    weights = [torch.randint(-127, 128, size, generator=generator, dtype=torch.int8) for _ in range(2)]
    assert _run(library, index, xs, weights) == 0


@pytest.mark.gxx
@pytest.mark.parametrize("x", [-127, 127])
@pytest.mark.parametrize("w", [-127, 127])
def test_extremes(library: Library, x: int, w: int) -> None:
    for index, (_, (layout_in, layout_out), _) in enumerate(CASES):
        xs = [torch.full((1, 3, layout_in.channels), x, dtype=torch.int32)] * 2
        weights = [torch.full((layout_out.channels, layout_in.channels), w, dtype=torch.int8)] * 2
        assert _run(library, index, xs, weights) == 0


@pytest.mark.parametrize(
    ("layouts", "streamed", "load", "reduce"),
    [
        # 11 rows in tiles of 4, 4 and 3; a weight block of 16 by 16 is four words (iterations by hand)
        (LAYOUTS[0], False, 36, (16, 16, 15)),
        (LAYOUTS[0], True, 0, (40, 40, 39)),
        (LAYOUTS[2], False, 8, (12, 12, 11)),
        (LAYOUTS[2], True, 0, (12, 12, 11)),
    ],
)
def test_cycles_are_those_of_every_loop_entry(
    layouts: tuple[Layout, Layout], streamed: bool, load: int, reduce: tuple[int, ...]
) -> None:
    bench = _bench((16, 4), layouts, streamed)
    depths = {"LOAD": 10, "FILL": 20, "REDUCE": 30}
    blocks = layouts[0].blocks(16)
    fill = sum(blocks * n - 1 + 20 + 2 for n in (4, 4, 3))
    sequence = fill + sum(i - 1 + 30 + 2 for i in reduce)
    want = 2 * ((load - 1 + 10 + 2 if load else 0) + 2 * sequence)
    assert bench.stage.cycles(bench.design, 2, 11, depths.__getitem__) == want
    row = replace(bench.stage, one_row=True)
    assert row.cycles(bench.design, 2, 11, depths.__getitem__) == row.cycles(
        bench.design, 2, 1, depths.__getitem__
    )


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
    stage = _bench((8, 1), LAYOUTS[0], False).stage
    assert stage.template == "matmul"
    monkeypatch.setattr(linear_file, "KEEP_BYTES", 21 * 40 - 1)
    assert replace(stage).template == "matmul_streamed"


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
