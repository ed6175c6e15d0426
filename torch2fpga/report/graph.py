# SPDX-License-Identifier: Apache-2.0
"""The stages of a design as a picture: kernels are frames, the layer loop a band through them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch2fpga.design import Design, Port, Stage
from torch2fpga.report import layout
from torch2fpga.report.describe import (
    FAMILIES,
    GROUPS,
    ROLES,
    count_text,
    family,
    memory_ports,
    owners,
    port_text,
    shape_text,
    size_text,
)
from torch2fpga.report.layout import number_text
from torch2fpga.report.template import environment

NODE_WIDTH, NODE_HEIGHT = 224.0, 52.0
PILL_WIDTH, PILL_HEIGHT = 176.0, 20.0
NAME_CHARACTERS, PILL_CHARACTERS = 30, 26
SHAPE_CHARACTERS = 34
MARK = 13.0
LEGEND_ROW = 20.0
#: width of a character of the legend's text
CHARACTER = 6.1
#: templates that are drawn as a small pill
PILLS = ("fork", "relay", "loop_enter", "loop_exit", "loop_back", "loop_last")


@dataclass(frozen=True)
class _Link:
    """A stream between two stages."""

    stream: str
    source: str
    target: str

    @property
    def edge(self) -> layout.Edge:
        return layout.Edge(self.stream, self.source, self.target)


def render_svg(design: Design, *, links: bool = False) -> str:
    """The graph of stages as one SVG element with its own style (light and dark).

    Args:
        design: any design, with or without kernels.
        links: stages link to ``#stage-<index>`` (their row in the report's table).
    """
    return str(environment().get_template("graph.svg.j2").render(_view(design, links)))


def _view(design: Design, links: bool) -> dict[str, Any]:
    found, ports = _links(design), memory_ports(design)
    drawing = layout.draw(_nodes(design), [link.edge for link in found])
    rows, legend_width = _legend(design, drawing, ports, max(drawing.width, 560.0))
    width = max(drawing.width, legend_width)
    head = LEGEND_ROW * rows[-1]["row"] + LEGEND_ROW + 8 if rows else 0.0
    shift = (width - drawing.width) / 2
    return {
        "width": number_text(width),
        "height": number_text(drawing.height + head),
        "shift": number_text(shift),
        "head": number_text(head),
        "legend": rows,
        "label": f"Stages of {design.name}",
        "frames": _frames(design, drawing),
        "bands": _bands(design, drawing),
        "edges": [_edge(design, link, drawing) for link in found],
        "labels": _loop_labels(design, drawing, found),
        "nodes": [_node(design, i, drawing, links, ports) for i in range(len(design.stages))],
    }


def _links(design: Design) -> list[_Link]:
    writer = {out: s.name for s in design.stages for out in s.outputs}
    return [
        _Link(name, writer[name], stage.name)
        for stage in design.stages
        for name in dict.fromkeys(stage.inputs)
        if name in writer
    ]


def _nodes(design: Design) -> list[layout.Node]:
    number = {k.name: i for i, k in enumerate(design.kernels)}
    kernels = owners(design)
    bands = list(GROUPS)
    nodes = []
    for stage in design.stages:
        pill = stage.template in PILLS
        size = (PILL_WIDTH, PILL_HEIGHT) if pill else (NODE_WIDTH, NODE_HEIGHT)
        frame = number.get(kernels.get(stage.name, ""), len(number))
        band = bands.index(stage.group) if stage.group in GROUPS else len(bands)
        nodes.append(layout.Node(stage.name, *size, frame, band))
    return nodes


def _frames(design: Design, drawing: layout.Drawing) -> list[dict[str, Any]]:
    views = []
    for number, box in drawing.frames.items():
        if number < len(design.kernels):
            kernel = design.kernels[number]
            title = f"kernel {kernel.name}"
            note = f"SLR{kernel.slr} · {count_text(len(kernel.stages), 'stage')}"
        else:
            title = "in no kernel" if design.kernels else design.name
            note = "" if design.kernels else count_text(len(design.stages), "stage")
        room = int(box.width / 7.6)
        views.append({**_box(box), "title": _clip(title, room), "full": title, "note": note})
    return views


def _bands(design: Design, drawing: layout.Drawing) -> list[dict[str, Any]]:
    words = list(GROUPS.items())
    views = []
    for (_, band), box in drawing.bands.items():
        key, text = words[band] if band < len(words) else ("other", "other stages")
        if not any(s.group == "loop" for s in design.stages):
            text = "stages"
        elif key == "loop":
            text = f"{text} · {count_text(design.steps, 'step')}"
        views.append({**_box(box), "group": key, "text": text if box.width > 150 else key})
    return views


def _edge(design: Design, link: _Link, drawing: layout.Drawing) -> dict[str, Any]:
    route = drawing.routes[link.stream]
    stream = design.streams[link.stream]
    lanes = design.shape.lanes
    token, size = stream.cpp_type(lanes), size_text(stream.depth * stream.token_bytes(lanes))
    lines = [
        f"{link.stream}{' (AXI stream between kernels)' if stream.link else ''}",
        f"{link.source} → {link.target}",
        f"token {token}, depth {stream.depth:,}, FIFO of {size}",
    ]
    if stream.kind in ("rows", "scores"):
        lines.append(f"{count_text(stream.tokens_per_row(design.shape), 'token')} a row")
    kind = "back" if route.feedback else ("link" if stream.link else "plain")
    return {"path": route.path, "kind": kind, "title": "\n".join(lines), "link": link}


def _loop_labels(design: Design, drawing: layout.Drawing, links: list[_Link]) -> list[dict[str, Any]]:
    routes = [drawing.routes[link.stream] for link in links]
    tracks = [r.track for r in routes if r.feedback and r.track is not None]
    text = "next layer" if design.steps > 1 else "loop"
    return [{"x": number_text(x), "y": number_text(y), "text": text} for x, y in tracks[:1]]


def _node(
    design: Design, index: int, drawing: layout.Drawing, links: bool, ports: list[Port]
) -> dict[str, Any]:
    stage = design.stages[index]
    pill = stage.template in PILLS
    shape = shape_text(stage, design)
    template = stage.template or type(stage).__name__
    lines = [stage.name, f"{template} · {shape}", f"module: {stage.path or '(top)'}"]
    if stage.steps > 1:
        lines.append(f"{stage.steps} steps a launch")
    return {
        **_box(drawing.boxes[stage.name]),
        "stage": stage.name,
        "pill": pill,
        "family": family(stage),
        "name": _clip(stage.name, PILL_CHARACTERS if pill else NAME_CHARACTERS),
        "template": _clip(template, 30),
        "shape": _clip(shape, SHAPE_CHARACTERS),
        "title": "\n".join(lines),
        "href": f"#stage-{index}" if links else "",
        "marks": _marks(stage, ports),
    }


def _marks(stage: Stage, ports: list[Port]) -> list[dict[str, Any]]:
    """Memory ports at a stage, as marks on its right side."""
    near = {*stage.inputs, *stage.outputs, *([stage.params] if stage.params else [])}
    return [
        {
            "y": number_text(5 + i * (MARK + 2)),
            "letter": ROLES.get(port.role, ("?", ""))[0],
            "direction": port.direction,
            "title": port_text(port),
        }
        for i, port in enumerate([p for p in ports if near & set(p.streams)][:3])
    ]


def _legend(
    design: Design, drawing: layout.Drawing, ports: list[Port], room: float
) -> tuple[list[dict[str, Any]], float]:
    """Legend entries in rows no wider than ``room``; and the width they take."""
    families = {family(s) for s in design.stages}
    streams = {n for s in design.stages for n in (*s.inputs, *s.outputs, s.params)}
    roles = {p.role for p in ports if set(p.streams) & streams}
    items = [("family", key, text) for key, (text, _) in FAMILIES.items() if key in families]
    items += [("mark", letter, text) for role, (letter, text) in ROLES.items() if role in roles]
    if any(s.link for s in design.streams.values()):
        items.append(("line", "link", "between kernels"))
    if any(r.feedback for r in drawing.routes.values()):
        items.append(("line", "back", "to the next layer"))
    entries: list[dict[str, Any]] = []
    x, row, widest = 0.0, 0, 0.0
    for sort, key, text in items:
        size = 22 + CHARACTER * len(text) + 14 + (8 if sort == "line" else 0)
        if x and x + size > room:
            x, row = 0.0, row + 1
        entries.append(
            {"sort": sort, "key": key, "text": text, "x": number_text(x), "row": row, "y": row * 20}
        )
        x += size
        widest = max(widest, x)
    return entries, widest


def _box(box: layout.Box) -> dict[str, str]:
    return {
        "x": number_text(box.x),
        "y": number_text(box.y),
        "width": number_text(box.width),
        "height": number_text(box.height),
    }


def _clip(text: str, room: int) -> str:
    """``text`` shortened in the middle."""
    if len(text) <= room:
        return text
    tail = max(1, (room - 1) * 2 // 5)
    return f"{text[: room - 1 - tail]}…{text[-tail:]}"
