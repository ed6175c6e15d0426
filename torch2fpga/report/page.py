# SPDX-License-Identifier: Apache-2.0
"""The report: one HTML page that needs nothing beside itself, also without scripts."""

from __future__ import annotations

import base64
import hashlib
from typing import Any

from markupsafe import Markup

from torch2fpga.boards import Board
from torch2fpga.design import PARAMETER_READER, Design, Estimate
from torch2fpga.report.accuracy import accuracy_rows, chart
from torch2fpga.report.describe import (
    RESOURCES,
    ROLES,
    cosine_text,
    costed,
    count_text,
    fifo_storage,
    memory_ports,
    size_text,
    stream_text,
)
from torch2fpga.report.graph import render_svg
from torch2fpga.report.info import DISCLAIMER, MappingRow, Obtained, ReportInfo
from torch2fpga.report.plan_view import plan_cards, plan_view
from torch2fpga.report.template import TEMPLATES, environment
from torch2fpga.report.timeline import port_notes, render_timeline, timed_view, timing_cards

__all__ = ["MappingRow", "Obtained", "ReportInfo", "render_page"]

#: width of the bars in the table of stages
BAR = 90.0


def render_page(design: Design, info: ReportInfo) -> str:
    """The page as text; the same input gives the same bytes."""
    script = (TEMPLATES / "report.js").read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    names = {s.name: i for i, s in enumerate(design.stages)}
    return str(
        environment()
        .get_template("report.html.j2")
        .render(
            design=design,
            info=info,
            disclaimer=DISCLAIMER,
            cards=_cards(design, info),
            facts=_facts(design, info),
            graph=Markup(render_svg(design, links=True)),  # escaped by its own template
            stages=_stages(design),
            totals=_totals(design, info),
            pace=_pace(design, info),
            plan=plan_view(design, info.plan, info.board, info.timing),
            use=_use(design, info) if info.plan is None else [],
            streams=_streams(design, info),
            stream_total=_stream_total(design),
            ports=_ports(design, info),
            port_total=size_text(64 * sum(p.words for p in memory_ports(design))),
            timed=timed_view(design, info.timing),
            timeline=Markup(render_timeline(design, info.timing)) if info.timing is not None else "",
            accuracy=accuracy_rows(info.accuracy),
            chart=chart(design, info.accuracy),
            rows=names,
            script=Markup(script),
            script_hash=f"sha256-{digest}",
        )
    )


def _cards(design: Design, info: ReportInfo) -> list[dict[str, str]]:
    compared = sum(r.compared for r in info.accuracy)
    if info.bit_exact is None:
        exact = ("not verified yet", "call compiled.verify(*inputs)", "open")
    elif info.bit_exact:
        where = f" in {count_text(compared, 'value')} of all stages" if compared else ""
        exact = ("bit-exact", f"0 mismatches{where}: emitted C++ = reference", "good")
    else:
        wrong = sum(r.mismatches for r in info.accuracy)
        exact = ("not equal", f"{count_text(wrong, 'value')} differ from the reference", "bad")
    cosine = ("cosine to float", cosine_text(info.cosine), "at the outputs, on verified inputs")
    if info.cosine is None:
        cosine = ("cosine to float", "–", "not verified yet")
    layers = ("–", "no repeated block")
    if design.steps > 1:
        layers = (f"{design.steps:,}", f"one block, {design.steps:,} steps on the device")
    parameters = count_text(info.parameters, "parameter") if info.parameters is not None else ""
    kernels = f"in {count_text(len(design.kernels), 'kernel')}" if design.kernels else "no kernels yet"
    shape = design.shape
    rows = [
        ("model", info.model_class or design.name, parameters, ""),
        ("exactness", *exact),
        (*cosine, ""),
        ("precision", info.precision or "–", "integers in every stage", ""),
        ("stages", f"{len(design.stages):,}", kernels, ""),
        ("layers", *layers, ""),
        ("largest launch", f"{shape.max_batch:,} × {shape.max_seq:,}", "sequences × tokens", ""),
        ("datapath", f"{shape.lanes} lanes", f"tiles of {count_text(shape.tile, 'row')}", ""),
        *(plan_cards(info.plan) if info.plan is not None else []),
        *(timing_cards(info.timing) if info.timing is not None else []),
    ]
    return [{"label": a, "value": b, "note": c, "tone": d} for a, b, c, d in rows]


def _facts(design: Design, info: ReportInfo) -> list[tuple[str, str]]:
    facts = [("design", design.name)]
    if info.board is not None:
        facts += [
            ("board", info.board.title),
            ("part", info.board.part),
            ("platform", info.board.platform),
            ("tools", f"{info.board.tools[0]} to {info.board.tools[1]}"),
            ("clock", f"{_clock(info, info.board):g} MHz (assumed)"),
        ]
    return [(a, b) for a, b in facts if b]


def _clock(info: ReportInfo, board: Board) -> float:
    """MHz that the page's times are given for."""
    return info.plan.clock_mhz if info.plan is not None else board.clock_mhz


def _stages(design: Design) -> list[dict[str, Any]]:
    rows = costed(design)
    most = max((r.cost.cycles for r in rows), default=0)
    return [
        {
            "name": r.stage.name,
            "path": r.stage.path or "(top)",
            "steps": r.stage.steps,
            "kernel": r.kernel or "–",
            "template": r.stage.template or type(r.stage).__name__,
            "family": r.family,
            "shape": r.shape,
            "cycles": r.cost.cycles,
            "bar": f"{BAR * r.cost.cycles / most:.1f}" if most else "0",
            "slowest": bool(most) and r.cost.cycles == most,
            "numbers": [r.cost.dsp, r.cost.lut, r.cost.ff, r.cost.bram18, r.cost.uram],
        }
        for r in rows
    ]


def _totals(design: Design, info: ReportInfo) -> dict[str, Any]:
    total = design.estimate()
    keys = ("dsp", "lut", "ff", "bram18", "uram")
    shares = []
    slrs = info.board.slrs if info.board is not None else ()
    for key in keys if slrs else ():
        have = sum(getattr(s, key) for s in slrs)
        shares.append(_percent(getattr(total, key), have))
    return {"cycles": total.cycles, "numbers": [getattr(total, k) for k in keys], "shares": shares}


def _percent(used: int, have: int) -> str:
    if not have:
        return "–"
    return f"{100 * used / have:.1f} %"


def _pace(design: Design, info: ReportInfo) -> str:
    """What the slowest stage means for a launch."""
    cycles = design.estimate().cycles
    if not cycles:
        return ""
    text = f"The slowest stage needs {cycles:,} cycles for the largest launch (modelled)"
    if info.board is None:
        return f"{text}, a bound from below."
    clock = _clock(info, info.board)
    micro = cycles / clock
    time = f"{micro:.3g} µs" if micro < 1000 else f"{micro / 1000:,.2f} ms"
    return f"{text}, {time} at {clock:g} MHz (assumed, not synthesised): a bound from below."


def _use(design: Design, info: ReportInfo) -> list[dict[str, Any]]:
    """Bars of each SLR's resources, from its stages alone: for designs without a plan."""
    if info.board is None:
        return []
    rows = []
    for number, slr in enumerate(info.board.slrs):
        kernels = [k for k in design.kernels if k.slr == number]
        inside = {s for k in kernels for s in k.stages}
        total = Estimate()
        for stage in design.stages:
            if stage.name in inside:
                total = total + stage.cost(design)
        bars = []
        for key, _ in RESOURCES:
            used, have = getattr(total, key), getattr(slr, key)
            part = used / have if have else 0.0
            bars.append(
                {
                    "used": used,
                    "have": have,
                    "share": _percent(used, have),
                    "width": f"{100 * min(1.0, part):.1f}",
                    "tone": "bad" if part > 1 else ("warn" if part > 0.75 else "good"),
                }
            )
        rows.append(
            {"name": f"SLR{number}", "kernels": ", ".join(k.name for k in kernels) or "empty", "bars": bars}
        )
    return rows


def _streams(design: Design, info: ReportInfo) -> list[dict[str, Any]]:
    lanes = design.shape.lanes
    held = {s.name: s.high_water for s in info.timing.streams} if info.timing is not None else {}
    writers, readers = design.writers(), design.readers()
    read = {stream for stream, name in writers.items() if name == PARAMETER_READER}
    writers.update({stream: p.name for p in memory_ports(design) if p.role == "params" for stream in read})
    return [
        {
            "name": s.name,
            "ends": (writers.get(s.name, "–"), readers.get(s.name, "–")),
            "type": s.cpp_type(lanes),
            "row": stream_text(s),
            "depth": s.depth,
            "held": held.get(s.name),
            "size": s.depth * s.token_bytes(lanes),
            "storage": fifo_storage(s, lanes),
        }
        for s in design.streams.values()
    ]


def _stream_total(design: Design) -> str:
    """Bytes in FIFOs by where they lie."""
    lanes = design.shape.lanes
    sums: dict[str, int] = {}
    for stream in design.streams.values():
        kind = fifo_storage(stream, lanes)
        sums[kind] = sums.get(kind, 0) + stream.depth * stream.token_bytes(lanes)
    return ", ".join(
        f"{size_text(size)} in {kind}" for kind, size in sorted(sums.items(), key=lambda x: -x[1])
    )


def _ports(design: Design, info: ReportInfo) -> list[dict[str, Any]]:
    moved = port_notes(info.timing)
    return [
        {
            "name": p.name,
            "kernel": p.kernel or "–",
            "direction": p.direction,
            "role": ROLES.get(p.role, ("", p.role))[1],
            "binding": p.binding,
            "size": p.words * 64,
            "size_text": size_text(p.words * 64),
            "template": p.template,
            "streams": p.streams,
            "channel": info.channels.get((p.kernel, p.name), ""),
            "moved": moved.get((p.kernel, p.name), ""),
        }
        for p in memory_ports(design)
    ]
