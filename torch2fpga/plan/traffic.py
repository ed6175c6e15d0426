# SPDX-License-Identifier: Apache-2.0
"""Bytes that every memory port moves in a launch of a given size: what its access process reads or
writes of its buffer, as often as it does so. The timed run counts the same bytes."""

from __future__ import annotations

from torch2fpga.design import Design, Port, ceil_div
from torch2fpga.emit.ports import SUMS, parameter_word_count
from torch2fpga.lower.cache import CacheStage
from torch2fpga.lower.linear import MatmulStage
from torch2fpga.lower.linear4 import Int4MatmulStage

#: bytes of a memory word, and of a token id
WORD, ID = 64, 4


def bytes_moved(
    design: Design, batch: int, seq: int, past: int = 0, turns: int = 1
) -> dict[tuple[str, str], int]:
    """(kernel, argument) -> bytes in a launch of ``batch`` sequences of ``seq`` rows.

    Where tokens are generated each of the ``turns`` moves all that it needs; the first one works on ``seq``
    rows behind the ``past`` in the cache, the others on one.

    Weights that stay on chip are read once a launch, streamed ones again for every tile of rows;
    parameters once a launch; a row of an embedding table for every id, or every position of every
    sequence; of masks, rows and outputs the words that hold the launch's vectors.

    Raises:
        KeyError: for a port whose access process is unknown.
    """
    rows = [(past, seq), *((past + seq + i, 1) for i in range(turns - 1))]
    found = {
        (port.kernel, port.name): sum(_port_bytes(design, port, batch, n, before) for before, n in rows)
        if port.role != "ids"
        else batch * seq * ID
        for port in design.ports
    }
    for kernel in design.kernels:
        words = parameter_word_count(design, kernel)
        if words:
            found[kernel.name, "parameters"] = words * WORD * turns
    for port in design.ports:
        if port.sums and port.direction == "write":
            one = len(port.sums) * ID
            found[port.kernel, SUMS] = turns * one if design.turns else ceil_div(one, WORD) * WORD
    return found


def _port_bytes(design: Design, port: Port, batch: int, seq: int, past: int) -> int:
    config, rows = port.config, 1 if port.config.get("one_row") else seq
    if port.template == "gather_part":  # which part has a row depends on its id: the first counts for all
        return batch * seq * int(config["row_words"]) * WORD if config["first"] == 0 else 0
    if port.template == "write_tokens":
        return ID
    if port.template in ("read_cache", "write_cache"):
        cached = past if port.template == "read_cache" else seq
        return int(config["steps"] * config["row_words"]) * cached * WORD
    if port.template in ("gather_rows", "read_positions", "read_positions_from"):
        return batch * seq * int(config["row_words"]) * WORD
    if port.template == "read_lane_words":
        tiles = ceil_div(seq, design.shape.tile)
        return int(config["steps"] * config["step_words"] * tiles + config["after_words"]) * WORD
    if port.template == "read_words":
        return int(config["steps"] * config["words"]) * WORD
    if port.template == "read_words_per_tile":
        tiles = batch * ceil_div(rows, design.shape.tile)
        return int(config["steps"] * config["words"]) * tiles * WORD
    if port.template in ("read_rows", "write_rows"):
        vectors = batch * ceil_div(rows, config["rows_per_vector"]) * int(config["blocks"])
        return ceil_div(vectors, config["vectors_per_word"]) * WORD
    raise KeyError(port.template)


def model_bytes(design: Design, past: int, turns: int = 1) -> int:
    """Bytes that a model itself needs for ``turns`` tokens behind ``past`` cached rows, padding left out:
    its weights, the scales of their groups, and the keys and values of the rows before each token.

    What a port moves beyond that (channels that fill up a block, lanes without work) is the design's.
    """
    found = 0
    for stage in design.logic or design.stages:
        if isinstance(stage, MatmulStage):
            channels, outputs = stage.layout_in.channels, stage.layout_out.channels
            size = channels * outputs * stage.weight_bits // 8
            if isinstance(stage, Int4MatmulStage):
                size += ceil_div(channels, stage.group_size) * outputs
            found += turns * stage.steps * size
        if isinstance(stage, CacheStage):
            found += stage.steps * stage.layout.channels * sum(past + turn for turn in range(turns))
    return found
