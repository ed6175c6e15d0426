# SPDX-License-Identifier: Apache-2.0
"""Models of the timing tests."""

from __future__ import annotations

from functools import lru_cache

from tests.tiny import LONG, bert, compile_model, ids, padding
from torch2fpga.compiled import CompiledModel
from torch2fpga.timing.inputs import random_inputs
from torch2fpga.timing.report import TimeReport


@lru_cache
def long_bert() -> CompiledModel:
    """Two layers, up to three sequences of up to 19 tokens."""
    inputs = {"input_ids": ids(3, LONG), "attention_mask": padding(3, LONG)}
    return compile_model(bert(), inputs, tile=4, lanes=8)


def timed(model: CompiledModel, batch: int, seq: int, fifos: dict[str, int] | None = None) -> TimeReport:
    """One timed run of that size."""
    return model.time(**random_inputs(model, batch, seq), spread=False, interval=False, fifos=fifos)
