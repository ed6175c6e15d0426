# SPDX-License-Identifier: Apache-2.0
"""Compiled model -> report page on disk."""

from __future__ import annotations

import os
import re
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from torch2fpga.emit.link import channels
from torch2fpga.errors import CompileError
from torch2fpga.report.info import OBTAINED, PLANNED, TIMED, MappingRow, ReportInfo
from torch2fpga.report.page import render_page

if TYPE_CHECKING:
    from torch2fpga.compiled import CompiledModel
    from torch2fpga.simulate.verify import VerifyReport
    from torch2fpga.timing.report import TimeReport


def report_info(
    compiled: CompiledModel, verification: VerifyReport | None, timing: TimeReport | None = None
) -> ReportInfo:
    """What the page says beside the design."""
    origin = compiled.origin
    return ReportInfo(
        title=origin.model_class,
        model_class=origin.model_class,
        precision=origin.precision.upper(),
        board=compiled.board,
        parameters=origin.parameters,
        calibration_samples=origin.calibration_samples,
        bit_exact=verification.bit_exact if verification is not None else None,
        cosine=verification.cosine if verification is not None else None,
        accuracy=verification.stages if verification is not None else (),
        mapping=_mapping(compiled),
        channels={key: f"HBM[{n}]" for key, n in channels(compiled.design, compiled.board).items()},
        notes=(compiled.board.note,),
        warnings=origin.notes,
        obtained=(*OBTAINED, PLANNED, *([TIMED] if timing is not None else [])),
        timing=timing,
        plan=compiled.plan,
    )


def _mapping(compiled: CompiledModel) -> tuple[MappingRow, ...]:
    """Captured nodes with their stages (by module path where the graph is not at hand)."""
    by_path: dict[str, list[str]] = {}
    for stage in compiled.design.stages:
        by_path.setdefault(stage.path, []).append(stage.name)
    writer = {out: stage.name for stage in compiled.design.stages for out in stage.outputs}
    by_node: dict[str, list[str]] = {}
    for stream, (_, nodes) in compiled.origin.native.items():
        for node in nodes:
            stages = by_node.setdefault(node.meta.get("source", ""), [])
            if stream in writer and writer[stream] not in stages:
                stages.append(writer[stream])
    rows = []
    for name, path, operator in compiled.origin.mapping:
        rolled = re.sub(r"\.\d+(?=\.|$)", ".*", path, count=1)
        found = by_node.get(name) if by_node else by_path.get(path) or by_path.get(rolled)
        rows.append(MappingRow(name, operator, tuple(found or ()), path))
    return tuple(rows)


def write_report(
    compiled: CompiledModel,
    path: Path,
    verification: VerifyReport | None,
    timing: TimeReport | None = None,
) -> Path:
    """Write the page (beside, then renamed).

    Args:
        path: an ``.html`` file, or a folder that gets ``report.html``.
    Raises:
        CompileError: if the place cannot be written, or buffers do not fit the board's memory.
    """
    target = path / "report.html" if path.is_dir() or not path.suffix else path
    text = render_page(compiled.design, report_info(compiled, verification, timing))
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=target.parent, prefix=".report-") as folder:
            beside = Path(folder) / target.name
            beside.write_text(text, encoding="utf-8")
            os.replace(beside, target)
    except OSError as error:
        raise CompileError(f"cannot write the report to {target}: {error}") from error
    return target
