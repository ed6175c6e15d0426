# SPDX-License-Identifier: Apache-2.0
"""Compiled model -> report page on disk."""

from __future__ import annotations

import os
import re
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from torch2fpga.errors import CompileError
from torch2fpga.report.info import DISCLAIMER, MappingRow, ReportInfo
from torch2fpga.report.page import render_page

if TYPE_CHECKING:
    from torch2fpga.compiled import CompiledModel
    from torch2fpga.simulate.verify import VerifyReport


def report_info(compiled: CompiledModel, verification: VerifyReport | None) -> ReportInfo:
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
        notes=(DISCLAIMER, compiled.board.note),
        warnings=origin.notes,
    )


def _mapping(compiled: CompiledModel) -> tuple[MappingRow, ...]:
    """Captured nodes with the stages that stand at the same module path."""
    stages: dict[str, list[str]] = {}
    for stage in compiled.design.stages:
        stages.setdefault(stage.path, []).append(stage.name)
    rows = []
    for node, path, operator in compiled.origin.mapping:
        rolled = re.sub(r"\.\d+(?=\.|$)", ".*", path, count=1)
        found = stages.get(path) or stages.get(rolled) or []
        rows.append(MappingRow(node, operator, tuple(found), path))
    return tuple(rows)


def write_report(compiled: CompiledModel, path: Path, verification: VerifyReport | None) -> Path:
    """Write the page (beside, then renamed).

    Args:
        path: an ``.html`` file, or a folder that gets ``report.html``.
    Raises:
        CompileError: if the place cannot be written.
    """
    target = path / "report.html" if path.is_dir() or not path.suffix else path
    text = render_page(compiled.design, report_info(compiled, verification))
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile("w", dir=target.parent, delete=False, suffix=".tmp") as file:
            file.write(text)
        os.replace(file.name, target)
    except OSError as error:
        raise CompileError(f"cannot write the report to {target}: {error}") from error
    return target
