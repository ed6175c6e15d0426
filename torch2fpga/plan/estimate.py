# SPDX-License-Identifier: Apache-2.0
"""``torch2fpga.estimate``: would a model fit a card, how fast could it be, and what binds.

Everything is *modelled* by the formulas of ``plan/roofline.py`` (docs/estimate.md writes them out): for the
card, not for a design that the compiler emits today, and without weights.
"""

from __future__ import annotations

from typing import Any

from torch2fpga.boards import BOARDS, Board, board_named
from torch2fpga.errors import InputError
from torch2fpga.plan.meta_model import meta_model
from torch2fpga.plan.model_estimate import Decode, Limit, Memory, ModelEstimate, Prefill, Size
from torch2fpga.plan.roofline import (
    CONSTANT_BYTES,
    PRECISIONS,
    TABLE_BYTES,
    Machine,
    blocks_bytes,
    cards_needed,
    fits_whole,
    machines,
    memory_parts,
    outside_ms,
    prompt_blocks,
    resident_bytes,
    stack_rows,
    token_bytes,
    token_products,
)
from torch2fpga.plan.workload import Workload, read_workload

#: tokens of a prompt and of a sequence, unless the model has fewer positions
PROMPT, CONTEXT = 128, 1024


def estimate(
    config_or_model: Any,
    board: str = "u280",
    precision: str = "w8a8",
    *,
    batch: int = 1,
    prompt: int | None = None,
    context: int | None = None,
    clock_mhz: float | None = None,
) -> ModelEstimate:
    """Whether a model fits a card, how fast it could be, and what binds; without weights.

    >>> print(torch2fpga.estimate("Llama-2-7b-hf/config.json", precision="w4a8"))  # doctest: +SKIP

    Every figure is modelled (docs/estimate.md): times are milliseconds, memory is bytes.

    Args:
        config_or_model: a configuration of transformers, its settings as a mapping, the path of a
            ``config.json`` or of its folder (nothing is fetched), or a ``torch.nn.Module``, whose
            parameters may be on the meta device.
        board: a card, as for ``compile``.
        precision: w8a8, w4a8 (int4 weights, a scale of 16 bits for every 64) or w4a4.
        batch: sequences at a time.
        prompt: tokens that are there before the first one is made, and all that an encoder sees; 128
            or as many as the model has positions for.
        context: tokens of a sequence whose keys and values are kept; 1,024 likewise.
        clock_mhz: of the kernels; the card's planned one.

    Raises:
        InputError: for numbers or a precision that cannot be, or more tokens than positions.
        CompileError: for an unknown card, a model without repeated blocks or linear layers, or one that
            transformers cannot build.
        ModelSpecError: if a path leads to no configuration.
    """
    card = board_named(board)
    if precision not in PRECISIONS:
        raise InputError(f"unknown precision {precision!r}; there are {', '.join(PRECISIONS)}")
    work = read_workload(*meta_model(config_or_model))
    prompt, context = _lengths(work, prompt, context)
    clock = float(card.clock_mhz) if clock_mhz is None else float(clock_mhz)
    for name, value in (("batch", batch), ("prompt", prompt), ("context", context), ("clock_mhz", clock)):
        if not value > 0:
            raise InputError(f"{name} is {value}; give a number greater than zero")
    budgets = machines(card, PRECISIONS[precision], clock)
    caps = budgets[0]
    memory = _memory(work, caps, batch, context, prompt)
    decode = _decode(work, caps, batch, context, prompt) if work.generative else None
    prefills = tuple(_prefill(work, machine, batch, prompt) for machine in budgets)
    return ModelEstimate(
        name=work.name,
        board=card.name,
        precision=precision,
        clock_mhz=clock,
        batch=batch,
        prompt=prompt,
        context=context if work.generative else None,
        size=_size(work, caps, prompt, context),
        memory=memory,
        prefill=prefills,
        decode=decode,
        nearest=_nearest(work, caps, batch, context, prompt, memory),
        assumptions=work.assumptions,
    )


def _lengths(work: Workload, prompt: int | None, context: int | None) -> tuple[int, int]:
    """Prompt and context, checked against the positions of the model."""
    longest = work.positions
    for name, value in (("prompt", prompt), ("context", context)):
        if value is not None and longest is not None and value > longest:
            raise InputError(f"{work.name} has {longest} positions; {name} {value} is more than that")
    least = min(PROMPT, longest or PROMPT)
    if prompt is None and context is not None and not work.joint:
        least = min(least, context)
    prompt = least if prompt is None else prompt
    context = max(prompt, min(CONTEXT, longest or CONTEXT)) if context is None else context
    if work.generative and not work.joint and context < prompt:
        raise InputError(f"a context of {context} tokens does not hold a prompt of {prompt}")
    return prompt, context


def _size(work: Workload, machine: Machine, prompt: int, context: int) -> Size:
    weights = sum(s.repeat * b.active for s in work.stacks for b in s.blocks)
    products, pairs = token_products(work, context, prompt) if work.generative else (0, 0)
    rows = work.patches or prompt
    # a head works on the last position of a prompt; behind an encoder on tokens; in other encoders on all
    headed = rows if not work.generative else int(not work.joint)
    prompts = work.stem * rows + work.pooled + work.head * headed
    for stack in work.stacks:
        each = stack_rows(stack, prompt)
        for block in stack.blocks:
            if work.joint and stack.role == "decoder":
                prompts += stack.repeat * each * block.attention.cross_weights
                continue
            prompts += stack.repeat * (each * block.active + block.attention.pairs(each, each))
    return Size(
        parameters=work.parameters,
        layers=sum(s.repeat * len(s.blocks) for s in work.stacks),
        block_weights=sum(b.stored for b in work.blocks),
        active_weights=weights,
        head_weights=work.head,
        table_values=work.tables,
        weight_bytes=machine.weight_bytes(work.matrices),
        kv_bytes_per_token=work.kv_values * machine.precision.kv_bytes,
        prompt_macs=prompts,
        token_macs=products + pairs,
    )


def _memory(work: Workload, machine: Machine, batch: int, context: int, prompt: int) -> Memory:
    block = max(work.blocks, key=lambda b: resident_bytes(b, machine, prompt))
    size = resident_bytes(block, machine, prompt)
    if fits_whole(work, machine, prompt):
        kept = "whole"
    else:
        kept = "one block" if size <= machine.on_chip else "streamed"
    weights = machine.weight_bytes(work.matrices)
    tables = work.tables * TABLE_BYTES
    constants = CONSTANT_BYTES * (work.channels + sum(b.channels for b in work.blocks))
    needed = sum(memory_parts(work, machine, batch, context, prompt))
    board = machine.board
    return Memory(
        weight_bytes=weights,
        table_bytes=tables,
        constant_bytes=constants,
        kv_bytes=needed - weights - tables - constants,
        capacity_bytes=board.hbm_channels * board.hbm_bytes,
        cards=cards_needed(work, machine, batch, context, prompt),
        on_chip_bytes=machine.on_chip,
        blocks_bytes=blocks_bytes(work, machine),
        block_bytes=size,
        on_chip=kept,
    )


def _prefill(work: Workload, machine: Machine, batch: int, prompt: int) -> Prefill:
    times = prompt_blocks(work, machine, batch, prompt, fits_whole(work, machine, prompt))
    compute, memory = outside_ms(work, machine, batch, prompt)
    again = sum(t.fewest * t.once_ms for t in times) if any(t.fewest > 1 for t in times) else 0.0
    limits = (
        Limit("multipliers", compute + sum(t.compute_ms for t in times)),
        Limit("HBM bandwidth", memory + sum(t.once_ms for t in times)),
        Limit("on-chip capacity", again),
        Limit("wires", sum(t.fewest * t.cross_ms for t in times)),
    )
    ahead = times[0].once_ms if times[0].ahead else 0.0
    expected = ahead + sum(t.ms for t in times) + max(compute, memory)
    return Prefill(
        budget=machine.budget,
        multipliers=machine.dsp,
        clock_mhz=machine.clock_mhz,
        macs_per_cycle=machine.dsp * machine.precision.products,
        limits=limits,
        expected_ms=expected,
        fill_ms=sum(t.fill_ms for t in times),
        first_load_ms=ahead,
        tile_rows=max(t.tile for t in times),
        loads=max(t.loads for t in times),
        memory_bound=sum(t.feed_ms for t in times) > sum(t.compute_ms + t.fill_ms for t in times),
        first_token_ms=expected + _first_ms(work, machine, batch, prompt) if work.generative else None,
    )


def _first_ms(work: Workload, machine: Machine, batch: int, prompt: int) -> float:
    """The head for the last position; behind an encoder the decoder's first token."""
    if work.joint:
        size = token_bytes(work, machine, batch, 1, prompt, fits_whole(work, machine, prompt))
        products, pairs = token_products(work, 1, prompt)
    else:
        size, products, pairs = machine.weight_bytes(work.head), work.head, 0
    return max(size / machine.bytes_per_ms, machine.compute_ms(batch * products, batch * pairs))


def _decode(work: Workload, machine: Machine, batch: int, context: int, prompt: int) -> Decode:
    whole = fits_whole(work, machine, prompt)
    size = token_bytes(work, machine, batch, context, prompt, whole)
    products, pairs = (batch * n for n in token_products(work, context, prompt))
    memory = size / machine.bytes_per_ms
    near = machine.compute_ms(products, pairs, machine.near)
    # what the multipliers beside the memory cannot keep up with crosses to others
    crossing = max(0.0, 1 - memory / near) * size / machine.crossing_per_ms
    limits = (
        Limit("HBM bandwidth", memory),
        Limit("multipliers", machine.compute_ms(products, pairs)),
        Limit("wires", crossing),
    )
    weights = token_bytes(work, machine, batch, 0, 0, whole)
    return Decode(
        batch=batch,
        limits=limits,
        weight_bytes=weights,
        kv_bytes=size - weights,
        ports=machine.ports,
        gbs=machine.bytes_per_ms / 1e6,
    )


def _nearest(
    work: Workload, machine: Machine, batch: int, context: int, prompt: int, memory: Memory
) -> tuple[str, ...]:
    """What would hold the model, nearest first, if one card at this precision does not."""
    if memory.cards == 1:
        return ()

    def cards(board: Board, precision: str, tokens: int = context) -> int:
        other = machines(board, PRECISIONS[precision], machine.clock_mhz)[0]
        return cards_needed(work, other, batch, tokens, prompt)

    def fits(board: Board, precision: str, tokens: int) -> bool:
        return cards(board, precision, tokens) == 1

    here, small = machine.precision.name, "w4a8"
    found = []
    if work.generative and fits(machine.board, here, prompt):
        low, high = prompt, context
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if fits(machine.board, here, middle) else (low, middle)
        found.append(f"a context of {low:,} tokens on this card")
    larger = [b for name, b in BOARDS.items() if ":" not in name and b.hbm_bytes > machine.board.hbm_bytes]
    choices = [(machine.board, small), *((b, here) for b in larger), *((b, small) for b in larger)]
    for board, precision in dict.fromkeys(choices):
        if precision != here and PRECISIONS[here].weight_bits <= PRECISIONS[small].weight_bits:
            continue
        count = cards(board, precision)
        if count < memory.cards:
            found.append(f"{count} {board.name} at {precision}")
    return (*found, f"{memory.cards} {machine.board.name} at {here}, blocks in order")
