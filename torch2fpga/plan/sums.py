# SPDX-License-Identifier: Apache-2.0
"""Checksums in a design: which readers add up what they read, and who writes their sums (``sums.hpp``)."""

from __future__ import annotations

from dataclasses import replace

from torch2fpga.design import Design, Port, Stream
from torch2fpga.emit.ports import SUMS, reads_parameters
from torch2fpga.errors import DesignError

#: processes that read constants in an order that is known beforehand
SUMMED = ("read_words", "read_words_per_tile", "read_lane_words")


def add_sums(design: Design) -> Design:
    """The design with a stream from every reader of weights and parameters to the writer of results.

    Rows of tables and caches are not added up: which are read is known when the launch is over.

    Raises:
        DesignError: where a reader is in another kernel than the writer of results, and where the name of
            the new argument is taken.
    """
    result = next(p for p in design.ports if p.role in ("output", "tokens"))
    if SUMS in {p.name for p in design.ports}:
        raise DesignError(f"checksums leave by an argument called {SUMS}, which the model has already")
    taken = {*design.streams, *(s.name for s in design.stages), *(p.name for p in design.ports)}
    read = [p for p in design.ports if p.role == "weights" and p.template in SUMMED]
    names = {p.name: _free(f"{p.name}_sum", taken) for p in read}
    kernels = {k.name: _free("parameters_sum", taken) for k in design.kernels if reads_parameters(design, k)}
    away = [f"port {p.name} in {p.kernel}" for p in read if p.kernel != result.kernel]
    away += [f"the parameters in {name}" for name in kernels if name != result.kernel]
    if away:
        raise DesignError(
            f"checksums need all memory ports in one kernel: {', '.join(away)}, but results leave "
            f"{result.kernel}"
        )
    order = (*names.values(), *kernels.values())
    ports = tuple(_with_sums(p, names, result, order) for p in design.ports)
    return replace(
        design,
        streams={**design.streams, **{n: Stream(n, "ids", one_row=True) for n in order}},
        ports=ports,
        kernels=tuple(replace(k, parameters_sum=kernels.get(k.name)) for k in design.kernels),
    )


def _free(name: str, taken: set[str]) -> str:
    while name in taken:
        name += "_"
    taken.add(name)
    return name


def _with_sums(port: Port, names: dict[str, str], result: Port, order: tuple[str, ...]) -> Port:
    if port.name == result.name:
        return replace(port, sums=order)
    return replace(port, sums=(names[port.name],)) if port.name in names else port
