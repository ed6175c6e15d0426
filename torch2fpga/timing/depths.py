# SPDX-License-Identifier: Apache-2.0
"""Pipeline depths of a design's loops, estimated from the syntax tree of its emitted kernels."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

from torch2fpga.design import Depths, Design
from torch2fpga.emit.checker.schedule import PipelinedLoop, analyse
from torch2fpga.simulate.build import INCLUDE
from torch2fpga.simulate.functional import functional_sources


def pipelined_loops(design: Design, clock_mhz: float) -> tuple[PipelinedLoop, ...]:
    """Every pipelined loop of every process, with its depth at that clock."""
    sources = functional_sources(design)
    kernels = tuple(f"{kernel.name}.cpp" for kernel in design.kernels)
    text = tuple(sorted((name, content) for name, content in sources.items() if name != "functional.cpp"))
    return _analysed(text, kernels, clock_mhz)


@lru_cache(maxsize=8)
def _analysed(
    text: tuple[tuple[str, str], ...], kernels: tuple[str, ...], clock_mhz: float
) -> tuple[PipelinedLoop, ...]:
    return analyse(dict(text), kernels, include_dirs=(INCLUDE,), clock_mhz=clock_mhz)


def site(loop: PipelinedLoop) -> tuple[str, str]:
    """How the simulation names the loop: (``kernel/process``, ``file:line``)."""
    return loop.path, f"{loop.file}:{loop.line}"


def depth_settings(loops: Sequence[PipelinedLoop]) -> dict[tuple[str, str], int]:
    """Depths as the timed run takes them."""
    return {site(loop): loop.depth for loop in loops}


def depths_of(loops: Sequence[PipelinedLoop], stage: str) -> Depths:
    """label -> depth of one stage's loops, for ``Stage.cycles``.

    The function raises KeyError for a label that the stage does not have.
    """
    found = {loop.label: loop.depth for loop in loops if loop.process == stage}
    return found.__getitem__
