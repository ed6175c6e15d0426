# SPDX-License-Identifier: Apache-2.0
"""FIFO depths from the design: where paths part and join, the short one must hold back as many
rows as the long one takes in before its first row comes out.

Arrival times are counted in rows. A stage that works on tiles holds one tile; attention takes in
a whole sequence of keys before it looks at a query. Rows pass block by block of channels within a
tile, so a stage that joins channels takes a whole tile of its first input before it touches the
second: that one must hold back a tile even where both come from the same fork. The feedback of the
layer loop holds all rows of a launch, because the first stages of the next layer may not start
before this layer is done.

A stream between SLRs passes register stages and a relay. Beside it nothing waits in rows, but a path
that does not cross must hold back a token for every cycle that the other is later, or the register
stages would cost throughput (the balancing of reconvergent paths of AutoBridge and TAPA).
"""

from __future__ import annotations

from dataclasses import replace

from torch2fpga.boards import U280, Board
from torch2fpga.design import Design, Stage, ceil_div
from torch2fpga.lower.attention_arrays import KeyedArray
from torch2fpga.lower.plumbing import LoopEnterStage, RelayStage
from torch2fpga.plan.wires import link_ends

#: tokens of slack on streams that no join waits for
MINIMUM = 16

#: cycles that a token takes through a relay and the FIFO behind it, with room to spare
RELAY_CYCLES = 8

#: most words that are read from a cache ahead of their use: the depth of a URAM, 8 of which hold words;
#: over a link, whose FIFO the linker makes, that of a block RAM (15 of them hold words)
WORDS_AHEAD, LINK_WORDS_AHEAD = 4096, 512


def size_fifos(design: Design, board: Board = U280) -> Design:
    """The design with the depth of every row stream set.

    Args:
        board: register stages of a boundary between SLRs.
    """
    s = design.shape
    arrival: dict[str, int] = {}
    depth: dict[str, int] = {}
    delay = crossing_delays(design, board)
    writer = {name: stage.group for stage in design.stages for name in stage.outputs}
    free = 0  # shared lanes: rows that have gone in when they are done with the layer before
    for stage in design.stages:
        inputs = [i for i in stage.inputs if design.streams[i].kind in ("rows", "exponents", "scores")]
        if isinstance(stage, RelayStage | LoopEnterStage):
            ready = max((arrival.get(i, 0) for i in inputs), default=0)
        else:
            ready = _ready(stage, inputs, arrival, design)
        if stage.shares_array and stage.group == "loop":
            ready = free = max(ready, free) + s.max_seq  # the lanes make one layer after the other
        latest = max((delay.get(i, 0) for i in inputs), default=0)
        for name in inputs:
            stream = design.streams[name]
            rows = _in_advance(stage, s.max_batch, s.max_seq)
            if not _reads_whole_first(stage, name):
                rows = ready - arrival.get(name, 0)
            if any(stage.inputs[i] == name for i in stage.tile_late):
                rows += s.tile
            if isinstance(stage, LoopEnterStage):
                rows = s.max_batch * s.max_seq if name == stage.inputs[1] else 0
            if stream.kind == "scores" or stream.link:
                continue
            if stage.group == "after" and writer.get(name) == "before":
                rows = s.max_batch * s.max_seq  # waits for the whole layer loop
            # a token a cycle at most passes while the other path is late
            depth[name] = _depth(rows, stream.tokens_per_row(s), s.tile) + latest - delay.get(name, 0)
        hold = {"tile": s.tile, "seq": s.max_seq}.get(stage.hold, 0)
        for name in stage.outputs:
            arrival[name] = ready + hold
    depth.update(_feedback(design))
    depth.update(_ahead(design))
    streams = {
        name: replace(stream, depth=depth.get(name, stream.depth)) for name, stream in design.streams.items()
    }
    return replace(design, streams=streams)


def crossing_delays(design: Design, board: Board) -> dict[str, int]:
    """stream -> cycles that links and their relays add on the slowest path to it.

    The layer loop begins again at zero: what it returns is waited for anyway.
    """
    registers = {name: abs(a - b) * board.crossing_cycles for name, (a, b) in link_ends(design).items()}
    found: dict[str, int] = {}
    for stage in design.stages:
        latest = 0
        if not isinstance(stage, LoopEnterStage):
            latest = max((found.get(i, 0) + registers.get(i, 0) for i in stage.inputs), default=0)
        if isinstance(stage, RelayStage):
            latest += RELAY_CYCLES
        found.update(dict.fromkeys(stage.outputs, latest))
    return found


def _depth(rows: int, tokens: int, tile: int) -> int:
    """Tokens for ``rows`` rows and two tiles of slack."""
    if rows <= 0:
        return max(MINIMUM, 2 * tile)
    return (rows + 2 * tile) * tokens


def _in_advance(stage: Stage, batch: int, seq: int) -> int:
    """Rows of the next sequence (or step) that pile up while a stage still works on the last one, so
    that what makes them need not wait: a whole sequence, where there is another."""
    return seq if stage.steps * batch > 1 else 0


def _reads_whole_first(stage: Stage, name: str) -> bool:
    return any(stage.inputs[i] == name for i in stage.whole_first)


def _ready(stage: Stage, inputs: list[str], arrival: dict[str, int], design: Design) -> int:
    """Rows that went in at the source before the stage's first output row can form."""
    times = [0]
    for name in inputs:
        whole = design.shape.max_seq if _reads_whole_first(stage, name) else 0
        times.append(arrival.get(name, 0) + whole)
    return max(times)


def _feedback(design: Design) -> dict[str, int]:
    """Streams that return to the start of the loop hold every row of a launch."""
    s = design.shape
    found: dict[str, int] = {}
    writer = {o: st for st in design.stages for o in st.outputs}
    for stage in design.stages:
        if not isinstance(stage, LoopEnterStage):
            continue
        name = stage.inputs[1]
        rows = s.max_batch * ceil_div(s.max_seq, s.tile) * s.tile
        found[name] = (rows + 2 * s.tile) * design.streams[name].tokens_per_row(s)
        assert name in writer
    return found


def _ahead(design: Design) -> dict[str, int]:
    """Words from a cache, of which an array takes none while it multiplies."""
    found: dict[str, int] = {}
    for stage in design.stages:
        if isinstance(stage, KeyedArray) and stage.cached:
            stream = design.streams[stage.inputs[2]]
            most = LINK_WORDS_AHEAD if stream.link else WORDS_AHEAD
            found[stream.name] = max(stream.depth, min(stage.words_ahead(design), most))
    return found


def storage_of(depth: int, token_bytes: int) -> str:
    """Where a FIFO lives: shift registers, block RAM or URAM."""
    bits = depth * token_bytes * 8
    if depth <= 32 or bits <= 1024:
        return "srl"
    return "uram" if depth * token_bytes > 32 * 1024 else "bram"
