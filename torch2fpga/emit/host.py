# SPDX-License-Identifier: Apache-2.0
"""The host program of a project: its fixed sources (``torch2fpga/host``) and the design's tables."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch2fpga.design import ELEMENTS, Design, Kernel
from torch2fpga.emit.golden import Golden, golden_path
from torch2fpga.emit.kernel import render, scalars
from torch2fpga.emit.link import channels
from torch2fpga.emit.ports import KernelPort, all_ports, kernel_ports, port_bytes, shares
from torch2fpga.emit.sums import result_port, sum_stride, summed
from torch2fpga.emit.testbench import weights_path
from torch2fpga.emit.turns import LAUNCH
from torch2fpga.lower.rows import rows_needed
from torch2fpga.simulate.launch import Launch

if TYPE_CHECKING:
    from torch2fpga.compiled import CompiledModel

SOURCES = Path(__file__).resolve().parent.parent / "host"
#: how outputs become the user's, for ``torch2fpga.load(folder, device=...)``
INTERFACE = "host/interface.json"
#: the checksum is the test bench's
SHA256 = Path(__file__).resolve().parent / "templates" / "sha256.hpp"


def host_files(
    compiled: CompiledModel, golden: Golden, manifest: Mapping[str, Any], manifest_sha256: str
) -> dict[str, str]:
    """Path in the project -> text of everything in ``host/``.

    Args:
        manifest: the manifest as data, for the checksums of files.
        manifest_sha256: of ``manifest.json``: a program that is used with another folder refuses.
    """
    found = {f"host/{p.name}": p.read_text(encoding="utf-8") for p in _sources()}
    found["host/sha256.hpp"] = SHA256.read_text(encoding="utf-8")
    found["host/design.cpp"] = design_source(compiled, golden, manifest, manifest_sha256)
    found[INTERFACE] = _interface_text(compiled, manifest_sha256)
    ports = [p for _, p in all_ports(compiled.design)]
    found["host/README.md"] = render(
        "host_README.md.j2",
        design=compiled.design,
        inputs=[p.name for p in ports if p.role in ("ids", "mask", "rows", "settings")],
        outputs=[p.name for p in ports if p.role in ("output", "tokens")],
        golden=golden,
        checksums=result_port(compiled.design) is not None,
    )
    return found


def _interface_text(compiled: CompiledModel, manifest_sha256: str) -> str:
    """JSON of what the manifest does not say: the user's shapes, and what the outputs come in."""
    data = {
        "manifest_sha256": manifest_sha256,
        "views": [{k: list(v) for k, v in item.view.items()} for item in compiled.interface.outputs],
        "kind": compiled.output.kind,
        "names": list(compiled.output.names),
        "class_name": compiled.output.class_name,
    }
    return json.dumps(data, indent=1, sort_keys=True, ensure_ascii=True) + "\n"


def _sources() -> list[Path]:
    return sorted([*SOURCES.glob("*.cpp"), *SOURCES.glob("*.hpp")])


def design_source(
    compiled: CompiledModel, golden: Golden, manifest: Mapping[str, Any], manifest_sha256: str
) -> str:
    """Text of ``host/design.cpp``. Every name in it is an identifier, every file one of the project's."""
    design, token = compiled.design, compiled.interface.token
    ports = all_ports(design)
    where = channels(design, compiled.board)
    sums = {p["file"]: str(p["sha256"]) for p in manifest["ports"] if p["file"]}
    sums |= {name: str(entry["sha256"]) for name, entry in manifest["golden"]["files"].items()}
    lines = [
        _port(compiled, golden, number, where[kernel.name, port.name], sums)
        for number, (kernel, port) in enumerate(ports)
    ]
    first = {port.role: number for number, (_, port) in reversed(list(enumerate(ports)))}
    generation = {
        "turns": design.turns,
        "keys": design.shape.keys if design.turns else 0,
        "ids": first.get("ids", 0) if design.turns else 0,
        "settings": first.get("settings", 0),
        "tokens": first.get("tokens", 0),
        "scale": repr(float(token.scale)) if token is not None else "0.0",
    }
    return render(
        "host_design.cpp.j2",
        design=design,
        manifest_sha256=manifest_sha256,
        min_seq=rows_needed(design),
        kernels=[_kernel(design, kernel) for kernel in design.kernels],
        ports=lines,
        generation=generation,
        golden=Launch(golden.batch, golden.seq, 0, golden.turns),
        sums={"port": first.get("sums", -1), "stride": sum_stride(design)},
    )


def _kernel(design: Design, kernel: Kernel) -> dict[str, Any]:
    """Argument indices: memory ports come first, then AXI streams, then numbers."""
    memory = len(kernel_ports(design, kernel))
    streams = len(kernel.axis_in) + len(kernel.axis_out)
    return {
        "name": kernel.name,
        "streams": list(range(memory, memory + streams)),
        "scalars": [
            {"index": memory + streams + place, "number": LAUNCH.index(name), "name": name}
            for place, name in enumerate(scalars(design, kernel))
        ],
    }


def _port(
    compiled: CompiledModel, golden: Golden, number: int, channel: int, sums: Mapping[str, str]
) -> dict[str, Any]:
    """A line of the table of ports."""
    design = compiled.design
    ports = all_ports(design)
    kernel, port = ports[number]
    file = weights_path(kernel, port)
    row_bytes, unit, one_row = _row(compiled, port)
    return {
        "name": port.name,
        "kernel": list(design.kernels).index(kernel),
        "index": kernel_ports(design, kernel).index(port),
        "write": port.write,
        "role": port.role,
        "channel": channel,
        "bytes": port_bytes(port),
        "shares": next((i for i, (_, other) in enumerate(ports) if shares(port, other)), -1),
        "file": file if file in sums else "",
        "sha256": sums.get(file, ""),
        "row_bytes": row_bytes,
        "unit": unit,
        "one_row": one_row,
        "entries": _entries(compiled, port),
        "golden": _golden(design, golden, port, sums),
        "sum": summed(design, kernel, port),
    }


def _row(compiled: CompiledModel, port: KernelPort) -> tuple[int, int, bool]:
    """(bytes of a row in memory, rows that go together, is it one row a sequence); 0 bytes: no rows."""
    lanes = compiled.design.shape.lanes
    if port.role == "ids":
        return 4, 1, False
    if port.role == "mask":
        return 1, lanes, False
    if port.role == "rows":
        spec = next(i for i in compiled.interface.inputs if i.name == port.binding)
        return spec.layout.blocks(lanes) * lanes * ELEMENTS[spec.element][1], 1, False
    if port.role == "output":
        item = next(o for o in compiled.interface.outputs if o.port == port.name)
        return item.layout.blocks(lanes) * lanes * ELEMENTS[item.element][1], 1, item.one_row
    return 0, 1, False


def _entries(compiled: CompiledModel, port: KernelPort) -> int:
    """Ids lie below it; 0 where any value does."""
    if port.role != "ids":
        return 0
    return next(i.entries for i in compiled.interface.inputs if i.name == port.binding)


def _golden(
    design: Design, golden: Golden, port: KernelPort, sums: Mapping[str, str]
) -> dict[str, Any] | None:
    """Golden content of a port, and where a cache's steps lie."""
    file = golden_path(port.binding if port.role == "cache" else port.name)
    if port.role in ("weights", "table", "params") or file not in sums:
        return None
    run, stride = 0, 0
    if port.role == "cache":
        config = next(p for p in design.ports if p.name == port.name).config
        run = Launch(golden.batch, golden.seq, 0, golden.turns).end * int(config["row_words"])
        stride = int(config["step_words"])
    content = len(golden.files[file])
    return {"file": file, "bytes": content, "sha256": sums[file], "run": run, "stride": stride}
