# SPDX-License-Identifier: Apache-2.0
"""Embeddings: sums of gathered rows against their reference; taken, folded and refused."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.stage_bench import MAX_BATCH, MAX_SEQ, RUNS, Bench, Library
from tests.tiny import SEQ, WIDTH, WORDS, cxx_cache, float_error, histogram, ids, lowered, refused, rows
from torch2fpga.design import Layout, Shape, Stream
from torch2fpga.lower.embedding import EmbedStage, row_words, table_image

__all__ = ["cxx_cache"]
#: (lanes, tile), width, id tables, positions
CASES = [
    ((8, 1), 21, 1, False),
    ((8, 3), 21, 2, True),
    ((16, 2), 40, 1, True),
    ((16, 4), 70, 2, False),
    ((8, 4), 13, 0, True),
]


def _bench(shape: tuple[int, int], width: int, tables: int, positions: bool) -> Bench:
    names = tuple(f"t{i}" for i in range(tables + positions))
    stage = EmbedStage(
        "e", "", "before", 1, names, ("y",), layout=Layout(1, width), ids=names[:tables], positions=positions
    )
    streams = (*(Stream(n, "words") for n in names), Stream("y", "rows", "int32", Layout(1, width)))
    return Bench(stage, streams, Shape(*shape, MAX_BATCH, MAX_SEQ))


@pytest.fixture(scope="module")
def library() -> Library:
    return Library([_bench(*case) for case in CASES])


def _gathered(table: Tensor, index: Tensor, layout: Layout, lanes: int) -> bytes:
    """The words that a gather port delivers for these ids."""
    image = table_image(table, layout, lanes)
    size = 64 * row_words(layout, lanes)
    assert len(image) == size * len(table)
    return b"".join(image[i * size : (i + 1) * size] for i in index.reshape(-1).tolist())


@pytest.mark.gxx
@pytest.mark.parametrize(("batch", "seq"), RUNS)
@pytest.mark.parametrize("index", range(len(CASES)))
def test_template_equals_reference(library: Library, index: int, batch: int, seq: int) -> None:
    (lanes, _), width, count, positions = CASES[index]
    layout, generator = Layout(1, width), torch.Generator().manual_seed(index)
    data: dict[str, Any] = {}
    inputs: list[Tensor] = []
    words: dict[str, bytes] = {}
    for i in range(count + positions):
        table = torch.randint(-32768, 32768, (31, width), generator=generator).to(torch.int16)
        table[0], table[1] = 32767, -32768
        chosen = torch.randint(0, 31, (batch, seq), generator=generator)
        chosen[:, 0] = 0
        if i == count:
            chosen = torch.arange(seq).expand(batch, seq)
        else:
            inputs.append(chosen)
        data[f"table{i}"] = table
        words[f"t{i}"] = _gathered(table, chosen, layout, lanes)
    like = torch.zeros(batch, seq)
    assert library.mismatches(index, [[*inputs, like]], batch, seq, [data], words) == 0


class _Tables(nn.Module):
    """Up to three tables and positions, added and normalised."""

    def __init__(self, tables: int, positions: bool) -> None:
        super().__init__()
        self.tables = nn.ModuleList(nn.Embedding(WORDS, WIDTH) for _ in range(tables))
        self.places = nn.Embedding(SEQ + 2, WIDTH) if positions else None
        self.register_buffer("at", torch.arange(SEQ + 2), persistent=False)

    def forward(self, *inputs: Tensor) -> Tensor:
        total = self.tables[0](inputs[0])
        for table, index in zip(list(self.tables)[1:], inputs[1:], strict=True):
            total = total + table(index)
        if self.places is not None:
            total = total + self.places(self.at[: inputs[0].shape[1]])
        return total


@pytest.mark.parametrize("positions", [False, True])
@pytest.mark.parametrize("tables", [1, 2, 3])
def test_taken(tables: int, positions: bool) -> None:
    """Two tables and positions are one stage; with a third table they are added one by one."""
    model, inputs = _Tables(tables, positions), tuple(ids() // (i + 1) for i in range(tables))
    found = histogram(lowered(model, inputs)[0].graph)
    assert found == ({"embed": 1} if tables < 3 else {"embed": 2 + positions, "add": 1 + positions})
    assert float_error(model, inputs) <= 1e-6


def test_the_same_table_twice() -> None:
    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table = nn.Embedding(WORDS, WIDTH)

        def forward(self, a: Tensor, b: Tensor) -> Tensor:
            return self.table(a) + self.table(b)

    assert float_error(Model(), (ids(), ids().flip(0))) <= 1e-6


class _Changed(nn.Module):
    def __init__(self, change: Any) -> None:
        super().__init__()
        self.table, self.change = nn.Embedding(2 * WORDS, WIDTH), change

    def forward(self, index: Tensor) -> Tensor:
        return self.table(self.change(index))


@pytest.mark.parametrize(
    "change", [lambda i: i + 1, lambda i: i * 2, lambda i: i.flip(1), lambda i: 3 - i.clamp(max=3)]
)
def test_arithmetic_on_ids_is_refused(change: Any) -> None:
    refused(_Changed(change), (ids(),), "table", "ids that are computed in the model")


def test_table_from_data_is_refused() -> None:
    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first = nn.Linear(WIDTH, WIDTH)

        def forward(self, x: Tensor, index: Tensor) -> Tensor:
            return nn.functional.embedding(index, self.first(x))

    refused(Model(), (rows(SEQ, WIDTH), ids(1) % SEQ), "", "must be a parameter")


def test_inputs_of_other_sizes_are_refused() -> None:
    model = _Tables(2, False)
    refused(model, (ids(), ids(1)), "", "inputs disagree")
