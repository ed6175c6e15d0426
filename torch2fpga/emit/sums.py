# SPDX-License-Identifier: Apache-2.0
"""What the sums of a launch have to be (``sums.hpp``): for golden vectors and for the host program."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from torch2fpga.design import Design, Kernel, Port, ceil_div
from torch2fpga.emit.ports import KernelPort, all_ports
from torch2fpga.simulate.launch import Launch

#: numbers in a memory word
NUMBERS = 16
#: sums are modulo this
MODULUS = (1 << 32) - 1


def result_port(design: Design) -> Port | None:
    """The port of results whose process writes the sums; None without checksums."""
    return next((p for p in design.ports if p.direction == "write" and p.sums), None)


def sum_stride(design: Design) -> int:
    """Numbers that the sums of a turn take in memory; 0 without checksums."""
    result = result_port(design)
    if result is None:
        return 0
    count = len(result.sums)
    return count if result.role == "tokens" else ceil_div(count, NUMBERS) * NUMBERS


def summed(design: Design, kernel: Kernel, port: KernelPort) -> dict[str, int]:
    """Place of a port's sum in a turn (-1: it has none), and how often its image is read.

    The first ``tile_words`` words are read for every sequence and every ``tile`` rows of it, the others
    once a turn.
    """
    result = result_port(design)
    own = next((p for p in design.ports if p.name == port.name), None)
    stream = kernel.parameters_sum if port.role == "params" else own.sums[0] if own and own.sums else None
    if result is None or stream is None or port.write:
        return {"place": -1, "tile_words": 0, "tile": 1}
    tile_words = _tile_words(own) if own is not None else 0
    # A sequence of one row has one tile, whatever the launch has.
    tile = design.shape.max_seq if own is not None and own.config.get("one_row") else design.shape.tile
    return {"place": result.sums.index(stream), "tile_words": tile_words, "tile": tile}


def _tile_words(port: Port) -> int:
    if port.template == "read_words_per_tile":
        return port.words
    if port.template == "read_lane_words":
        return int(port.config["steps"]) * int(port.config["step_words"])
    return 0


def total_of(content: bytes | memoryview) -> int:
    """Sum of 64-byte words, each folded by exclusive or of its sixteen numbers."""
    numbers = np.frombuffer(content, dtype="<u4").reshape(-1, NUMBERS)
    return int(np.bitwise_xor.reduce(numbers, axis=1).sum(dtype=np.uint64))


def given_sum(total: int) -> int:
    """What a reader gives for a total: modulo 2^32 - 1, where a total that is not 0 gives 2^32 - 1 for 0."""
    return (total - 1) % MODULUS + 1 if total else 0


def launch_sums(design: Design, images: Mapping[str, bytes], launch: Launch) -> bytes:
    """What a launch leaves at the port ``sums``.

    Args:
        images: argument -> image of every port that is added up.
    """
    turns = [rows for _, rows in launch.rows()] if design.turns else [launch.seq]
    found = np.zeros((len(turns), sum_stride(design)), dtype="<u4")
    for kernel, port in all_ports(design):
        how = summed(design, kernel, port)
        if how["place"] < 0:
            continue
        content = memoryview(images[port.name])
        tiles, once = (total_of(c) for c in _parted(content, 64 * how["tile_words"]))
        for turn, rows in enumerate(turns):
            total = tiles * launch.batch * ceil_div(rows, how["tile"]) + once
            found[turn, how["place"]] = given_sum(total)
    return found.tobytes()


def _parted(content: memoryview, at: int) -> tuple[memoryview, memoryview]:
    return content[:at], content[at:]


def sums_shape(design: Design) -> dict[str, Any]:
    """The manifest's words on sums; empty without checksums."""
    result = result_port(design)
    if result is None:
        return {}
    return {"checksums": {"port": "sums", "beside": result.name, "stride": sum_stride(design)}}
