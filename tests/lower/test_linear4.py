# SPDX-License-Identifier: Apache-2.0
"""Linear layers with int4 weights: rounding, the multiplier array against its reference, whole models."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import torch2fpga
from tests.loop_count import CountingLibrary, total_cycles
from tests.stage_bench import MAX_BATCH, MAX_SEQ, RUNS, Bench, Library
from tests.timing.test_closed_forms import compare
from tests.tiny import build, compile_model, cxx_cache, exact, gpt2, ids, rows, run, same, seeded
from torch2fpga.boards import U280
from torch2fpga.design import Design, Layout, Shape, Stream
from torch2fpga.errors import CompileError, DesignError
from torch2fpga.lower.linear import MatmulStage
from torch2fpga.lower.linear4 import (
    FRACTIONS,
    GROUPS,
    Int4MatmulStage,
    channel_places,
    effective_weights,
    quantise_groups,
)
from torch2fpga.plan.choices import choices

__all__ = ["cxx_cache", "seeded"]
#: channels in and out: gaps in a group; fewer blocks than a tile has rows; a last group that is short in
#: every size; more than eight groups (a second beat of scales)
LAYOUTS = (
    (Layout(3, 7), Layout(1, 40)),
    (Layout(1, 5), Layout(3, 7)),
    (Layout(1, 150), Layout(2, 24)),
    (Layout(5, 120), Layout(1, 20)),
)


@dataclass(frozen=True)
class _Case:
    """A stage and its sizes."""

    layouts: tuple[Layout, Layout]
    keep: str = "step"
    columns: int = 16
    group: int = 64
    tile: int = 4
    steps: int = 2
    one_row: bool = False

    def stage(self) -> Int4MatmulStage:
        return Int4MatmulStage(
            "fc", "fc", "loop", self.steps, ("x", "w"), ("y",), one_row=self.one_row, group_size=self.group,
            layout_in=self.layouts[0], layout_out=self.layouts[1], columns=self.columns, keep=self.keep,
        )  # fmt: skip

    def bench(self) -> Bench:
        streams = (
            Stream("x", "rows", "int8", self.layouts[0], self.one_row),
            Stream("w", "words"),
            Stream("y", "rows", "int32", self.layouts[1], self.one_row),
        )
        return Bench(self.stage(), streams, Shape(16, self.tile, MAX_BATCH, MAX_SEQ))

    def weights(self, seed: int) -> dict[str, Tensor]:
        """Random constants of a step."""
        generator = torch.Generator().manual_seed(seed)
        layout_in, layout_out = self.layouts
        size = (layout_out.channels, layout_in.channels)
        q = torch.randint(-8, 8, size, generator=generator, dtype=torch.int8)
        groups = -(-layout_in.blocks(16) // (self.group // 16))
        m = torch.randint(1, 128, (size[0], groups), generator=generator, dtype=torch.int8)
        return {"weight": q, "scales": m}


CASES = [
    *(_Case(layouts, "step", c, g) for layouts in LAYOUTS for c in (8, 16) for g in GROUPS),
    *(_Case(layouts, "streamed", 16, g) for layouts in LAYOUTS for g in GROUPS),
    *(_Case(LAYOUTS[i], keep, 8, 32, t) for t in (1, 3, 8) for i in (0, 2) for keep in ("step", "streamed")),
    *(_Case(LAYOUTS[i], "resident", c, 32, 3, 3) for c in (8, 16) for i in (1, 2)),
    *(_Case(LAYOUTS[3], k, 8, 32, 4, 2, True) for k in ("step", "resident", "streamed")),
]


@pytest.fixture(scope="module")
def library() -> Library:
    return Library([case.bench() for case in CASES])


def _words(bench: Bench, data: list[dict[str, Tensor]], batch: int, seq: int) -> bytes:
    stage = bench.stage
    assert isinstance(stage, MatmulStage)
    tiles = batch * -(-seq // stage.rows_a_tile(bench.design)) if stage.streamed else 1
    images = [stage.weight_image(d, bench.design) for d in data]
    assert {len(i) for i in images} == {64 * stage.weight_words(bench.design)}
    return b"".join(image * tiles for image in images)


def _run(library: Library, index: int, xs: list[Tensor], data: list[dict[str, Tensor]]) -> int:
    batch, seq = xs[0].shape[:2]
    words = {"w": _words(library.benches[index], data, batch, seq)}
    return library.mismatches(index, [[x, None] for x in xs], batch, seq, data, words)  # type: ignore[list-item]


@pytest.mark.gxx
@pytest.mark.parametrize(("batch", "seq"), RUNS)
@pytest.mark.parametrize("index", range(len(CASES)))
def test_array_equals_reference(library: Library, index: int, batch: int, seq: int) -> None:
    case = CASES[index]
    generator = torch.Generator().manual_seed(index)
    shape = (batch, 1 if case.one_row else seq, case.layouts[0].channels)
    xs = [torch.randint(-127, 128, shape, generator=generator, dtype=torch.int32) for _ in range(case.steps)]
    assert _run(library, index, xs, [case.weights(10 * index + i) for i in range(case.steps)]) == 0


@pytest.mark.gxx
@pytest.mark.parametrize("x", [-128, 127])
@pytest.mark.parametrize("q", [-8, 7])
def test_extremes(library: Library, x: int, q: int) -> None:
    for index, case in enumerate(CASES):
        shape = (1, 1 if case.one_row else 3, case.layouts[0].channels)
        xs = [torch.full(shape, x, dtype=torch.int32)] * case.steps
        data = case.weights(0)
        data = {"weight": torch.full_like(data["weight"], q), "scales": torch.full_like(data["scales"], 127)}
        assert _run(library, index, xs, [data] * case.steps) == 0


@pytest.mark.gxx
@pytest.mark.parametrize("key", ["weight", "scales"])
def test_one_wrong_constant_is_seen(library: Library, key: str) -> None:
    case = CASES[0]
    x = torch.ones(1, 1, 21, dtype=torch.int32)
    good = case.weights(0)
    bad = {**good, key: good[key].clone()}
    bad[key][39, -1] -= 1 if bad[key][39, -1] > 1 else -1
    words = {"w": _words(library.benches[0], [good, bad], 1, 1)}
    assert library.mismatches(0, [[x, None], [x, None]], 1, 1, [good] * 2, words) > 0  # type: ignore[list-item]


def test_reference_is_the_integer_sum() -> None:
    """Against plain integers, for values as large as they can be."""
    case = _Case((Layout(2, 300), Layout(1, 40)))
    data = case.weights(5)
    data["weight"][0], data["scales"][0] = -8, 127
    x = torch.randint(-128, 128, (1, 3, 600), dtype=torch.int32)
    x[0, 0] = -128
    bench = case.bench()
    (got,) = bench.stage.reference(data, [x, None])
    blocks = [(head * 304 + i) // 64 for head in range(2) for i in range(300)]
    weight = data["weight"].long() * data["scales"].long()[:, blocks]
    assert torch.equal(got.long(), x.long() @ weight.t())
    assert int(got.abs().max()) == 600 * 128 * 8 * 127
    assert int(got.abs().max()).bit_length() <= bench.stage.result_bits() <= 32


def _odd_depth(label: str) -> int:
    return {"LOAD": 11, "JOIN": 23, "REDUCE": 37}[label]


@pytest.mark.gxx
def test_closed_forms_are_the_sums_over_the_loops() -> None:
    chosen = CASES[:: max(1, len(CASES) // 16)] + CASES[-3:]
    library = CountingLibrary([case.bench() for case in chosen])
    for index, (case, bench) in enumerate(zip(chosen, library.benches, strict=True)):
        stage = bench.stage
        for batch, seq in ((2, 1 if case.one_row else 11), (1, 1)):
            counted = total_cycles(library.entries(index, batch, seq), _odd_depth)
            closed = stage.cycles(bench.design, batch, seq, _odd_depth)
            assert closed + stage.front_cycles(bench.design, batch, seq, _odd_depth) == counted, case


@pytest.mark.parametrize(
    ("keep", "columns", "layouts", "load", "reduce"),
    [
        # 11 rows in tiles of 4, 4 and 3; weights of a beat: 16 x columns (iterations by hand).
        # 3 blocks in and out, one beat of scales: an output block takes 4 places either way
        ("step", 16, LAYOUTS[0], 2 * (3 * 4 * 2 - 1 + 10 + 2), 3 * 3 * 4 + 11),
        ("step", 8, LAYOUTS[0], 2 * (3 * 2 * 4 - 1 + 10 + 2), 3 * 3 * 2 * 4 + 11),
        ("resident", 16, LAYOUTS[0], 2 * 3 * 4 * 2 - 1 + 10 + 2, 3 * 3 * 4 + 11),
        # heads of 8 blocks, 40 in all (10 groups of 64: two beats of scales), 2 blocks out
        ("step", 16, LAYOUTS[3], 2 * (2 * 42 * 2 - 1 + 10 + 2), 3 * 2 * 40 + 11),
        ("streamed", 16, LAYOUTS[3], 0, 3 * 2 * 2 * 42 + 11),
    ],
)
def test_cycles_by_hand(
    keep: str, columns: int, layouts: tuple[Layout, Layout], load: int, reduce: int
) -> None:
    bench = _Case(layouts, keep, columns).bench()
    depths = {"LOAD": 10, "JOIN": 20, "REDUCE": 30}
    want = load + 2 * 2 * (reduce - 1 + 30 + 2)  # two steps of two sequences
    assert bench.stage.cycles(bench.design, 2, 11, depths.__getitem__) == want


def test_image_of_a_small_stage() -> None:
    """One output block of two columns that are not zero, one input block: the bytes by hand."""
    case = _Case((Layout(1, 2), Layout(1, 2)), columns=8)
    bench = case.bench()
    data = {
        "weight": torch.tensor([[1, -2], [3, -8]], dtype=torch.int8),
        "scales": torch.tensor([[5], [127]], dtype=torch.int8),
    }
    assert isinstance(bench.stage, MatmulStage)
    image = bench.stage.weight_image(data, bench.design)
    assert len(image) == 2 * 2 * 64  # two parts: scales, weights
    assert image[:2] == bytes([5, 127]) and not any(image[2:64])
    assert image[64:66] == bytes([16 * 3 + 1, (16 * -8 - 2) & 255]) and not any(image[66:])


@pytest.mark.parametrize(
    ("fields", "lanes", "message"),
    [
        ({"columns": 4}, 16, "no 64-byte word of 128 weights"),
        ({"columns": 16}, 8, "no 64-byte word of 128 weights"),
        ({"keep": "streamed"}, 8, "no 64-byte word of 128 weights"),
    ],
)
def test_less_than_a_word_is_refused(fields: dict[str, Any], lanes: int, message: str) -> None:
    bench = _Case(LAYOUTS[0]).bench()
    stage = replace(bench.stage, **fields)
    with pytest.raises(DesignError, match=message):
        stage.config(replace(bench.design, shape=Shape(lanes, 4, 1, 8)))


@pytest.mark.parametrize(
    ("fields", "message"),
    [({"group_size": 16}, "groups are of"), ({"layout_in": Layout(1, 16514)}, "16,513 inputs")],
)
def test_impossible_arrays_are_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(DesignError, match=message):
        replace(_Case(LAYOUTS[0]).stage(), **fields)
    assert replace(_Case(LAYOUTS[0]).stage(), layout_in=Layout(1, 16513)).result_bits() == 32


@pytest.mark.parametrize(
    ("keep", "columns", "one_row", "products"),
    [
        ("step", 16, False, 1024),
        ("step", 8, False, 512),
        ("streamed", 16, False, 512),
        ("step", 8, True, 128),
    ],
)  # fmt: skip
def test_array_width(keep: str, columns: int, one_row: bool, products: int) -> None:
    """Half a slice a product, and one for every row and column a group ends in."""
    bench = _Case(LAYOUTS[3], keep, columns, one_row=one_row).bench()
    stage = bench.stage
    assert isinstance(stage, MatmulStage) and stage.products(bench.design) == products
    assert 0 <= stage.cost(bench.design).dsp - products // 2 - products // 16 <= 8


def test_packed_weights_take_half_the_memory() -> None:
    square = Layout(1, 768)
    bench = _Case((square, square), "step", 16).bench()
    four = bench.stage
    eight = MatmulStage(
        "fc", "fc", "loop", 2, ("x", "w"), ("y",), layout_in=square, layout_out=square, keep="step"
    )
    assert 2 * four.cost(bench.design).uram == eight.cost(bench.design).uram > 0
    assert isinstance(four, MatmulStage)
    # 16 x 16 blocks of two words; twelve groups: two beats of scales of two words a block of outputs
    assert four.weight_words(bench.design) == 48 * (48 + 2) * 2
    assert eight.weight_words(bench.design) == 48 * 48 * 4


def test_weights_are_streamed_from_twice_the_size_on() -> None:
    """4 MiB of URAM hold 8 Mi weights."""
    stage = replace(_Case(LAYOUTS[0]).stage(), keep="", layout_in=Layout(1, 2048))
    assert replace(stage, layout_out=Layout(1, 4096)).template == "matmul4"
    assert replace(stage, layout_out=Layout(1, 4097)).template == "matmul4_streamed"


# -- rounding ---------------------------------------------------------------------------------


def test_rounding_is_no_worse_than_any_scale_that_is_tried() -> None:
    weight = rows(24, 160) * torch.linspace(0.1, 3, 160)
    layout = Layout(1, 160)
    q, m, unit = quantise_groups(weight, layout)
    assert q.min() >= -8 and q.max() <= 7 and m.min() >= 1 and m.shape == (24, 3)
    real = effective_weights({"weight": q, "scales": m}, layout).double() * unit[:, None]
    # what clips nothing: one of the scales that are tried
    amax = torch.nn.functional.pad(weight, (0, 32)).reshape(24, 3, 64).abs().amax(2)
    step = ((amax / 7 / unit[:, None].float()).ceil() * unit[:, None].float()).repeat_interleave(64, 1)[
        :, :160
    ]
    plain = torch.floor(weight / step + 0.5) * step
    assert (real - weight).square().sum() < 0.97 * (plain - weight).square().sum()
    assert FRACTIONS[0] == 1.0


def test_small_and_dead_groups() -> None:
    """A group a thousand times smaller than another one, one of zeros, and an output of zeros."""
    weight = rows(3, 192)
    weight[:, 64:128] *= 1e-3
    weight[1, 128:] = 0
    weight[2] = 0
    q, m, unit = quantise_groups(weight, Layout(1, 192))
    real = effective_weights({"weight": q, "scales": m}, Layout(1, 192)).double() * unit[:, None]
    assert torch.isfinite(unit).all() and (unit > 0).all()
    assert torch.equal(real[1, 128:], torch.zeros(64).double()) and torch.equal(
        real[2], torch.zeros(192).double()
    )
    # half a step of the smallest m there is
    assert ((real - weight)[:, 64:128].abs() <= 0.501 * unit[:, None]).all()


def test_groups_count_channels_as_they_lie_in_tokens() -> None:
    """Heads of 24 fill two tokens: a group of 64 holds two heads, and one large value touches only them."""
    layout = Layout(5, 24)
    assert channel_places(layout)[[0, 23, 24, 48]].tolist() == [0, 23, 32, 64]
    weight = torch.full((1, 120), 0.1)
    weight[0, 50] = 10.0
    q, m, _ = quantise_groups(weight, layout)
    assert m.shape == (1, 3) and m[0, 1] > 50 * m[0, 0] and m[0, 0] == m[0, 2]
    assert (q[0, :48] == q[0, 0]).all() and q[0, 0] > 0 and (q[0, 48:50] == 0).all()


def test_rounding_that_looks_at_rows_is_closer_on_such_rows() -> None:
    """Inputs that go together: the outputs' error, on other rows of the same kind, falls by a third."""
    generator = torch.Generator().manual_seed(3)
    mixing = torch.randn(160, 160, generator=generator) * torch.linspace(1, 0.01, 160)[:, None]
    seen, unseen = (torch.randn(2000, 160, generator=generator) @ mixing for _ in range(2))
    weight, layout = rows(24, 160), Layout(5, 32)

    def error(*known: Tensor) -> float:
        q, m, unit = quantise_groups(weight, layout, 64, *known)
        real = effective_weights({"weight": q, "scales": m}, layout) * unit.float()[:, None]
        return float((unseen @ (real - weight).t()).square().mean())

    assert error(seen) < 0.67 * error()


def test_too_many_inputs_are_refused() -> None:
    with pytest.raises(CompileError, match="int32 accumulator"):
        quantise_groups(torch.zeros(1, 16514), Layout(1, 16514))


# -- plans ------------------------------------------------------------------------------------


def test_choices_take_a_word_a_cycle() -> None:
    """8 and 16 columns, streamed only 8."""
    stage = Int4MatmulStage(
        "fc", "fc", "before", 1, ("x", "w"), ("y",), layout_in=Layout(1, 256), layout_out=Layout(1, 256)
    )
    design = Design("d", Shape(16, 4, 1, 64), (stage,), {})
    for keep, columns in (("step", {8, 16}), ("streamed", {8})):
        found = choices(design, stage, U280, 250.0, keep, every=True)
        assert {c.array.columns for c in found if c.array is not None} == columns


#: where the first arrays of a model keep their weights, and the ports of their copies
KEPT = (("step", 1), ("resident", 2), ("streamed", 2), ("step", 2))


# -- whole models -----------------------------------------------------------------------------


@pytest.mark.gxx
@pytest.mark.hf
@pytest.mark.parametrize("name", ["bert_long", "gpt2", "llama"])
def test_models_are_exact(name: str) -> None:
    model, inputs = build(name)
    made = compile_model(model, inputs, precision="w4a8", lanes=16)
    arrays = [s for s in made.design.stages if isinstance(s, MatmulStage)]
    assert arrays and {type(s) for s in arrays} == {Int4MatmulStage}
    exact(made, inputs, cosine=0.97)
    assert made.origin.precision == "w4a8"


@pytest.mark.gxx
@pytest.mark.hf
def test_a_model_is_exact_after_splitting_saving_and_streaming(tmp_path: Any) -> None:
    model, inputs = gpt2(), {"input_ids": ids()}
    plain = compile_model(model, inputs, precision="w4a8", lanes=16)
    names = [s.name for s in plain.design.stages if isinstance(s, MatmulStage)]
    arrays: dict[str, dict[str, Any]] = {
        n: {"copies": 2, "columns": 8, "weights": k, "ports": p}
        for n, (k, p) in zip(
            names, (("step", 1), ("resident", 2), ("streamed", 2), ("step", 2)), strict=False
        )
    }
    made = compile_model(model, inputs, precision="w4a8", lanes=16, tile=3, plan={"arrays": arrays})
    exact(made, inputs, cosine=None)
    assert same(run(made, inputs), run(plain, inputs))
    made.save(tmp_path / "model")
    assert same(run(torch2fpga.load(tmp_path / "model"), inputs), run(plain, inputs))


@pytest.mark.gxx
@pytest.mark.hf
def test_timed_run_meets_the_closed_forms() -> None:
    model, inputs = build("bert_long")
    made = compile_model(model, inputs, precision="w4a8", lanes=16)
    for batch, seq in ((1, 1), (2, 5), (2, 19)):
        assert compare(made, batch, seq) > 40


def test_other_lanes_are_refused() -> None:
    with pytest.raises(CompileError, match="16"):
        compile_model(nn.Linear(4, 4), (rows(2, 3, 4),), precision="w4a8", lanes=8)
