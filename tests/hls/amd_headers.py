# SPDX-License-Identifier: Apache-2.0
"""AMD's open ap_int for g++: the Apache-licensed ap_* headers of an installed package."""

from __future__ import annotations

import importlib.util
import shutil
from pathlib import Path

#: AMD's open version of the types refuses to be taken for the one inside the HLS tool
WRAPPER = """\
#pragma push_macro("__SYNTHESIS__")
#undef __SYNTHESIS__
#include "amd/ap_int.h"
#pragma pop_macro("__SYNTHESIS__")
"""


def _package_headers() -> Path:
    """The folder of ap_int.h in the installed package, found without importing it."""
    spec = importlib.util.find_spec("da4ml")
    assert spec is not None and spec.submodule_search_locations
    (header,) = Path(spec.submodule_search_locations[0]).rglob("ap_int.h")
    return header.parent


def copy_headers(folder: Path) -> list[Path]:
    """Put nothing but the ap_* headers into a folder; returns the include paths that they need."""
    source = _package_headers()
    for file in sorted([*source.glob("ap_*.h"), *source.glob("etc/ap_*.h")]):
        assert "Licensed under the Apache License, Version 2.0" in file.read_text()[:800], file
        target = folder / "amd" / file.relative_to(source)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, target)
    (folder / "ap_int.h").write_text(WRAPPER)
    return [folder, folder / "amd"]


def synthesis_flags(include: list[Path]) -> list[str]:
    """Flags of g++ for the code that the HLS tool sees."""
    # Constructors of ap_int clear the upper bits of what they have not set yet.
    flags = ["-D__SYNTHESIS__", "-Wno-uninitialized", "-Wno-maybe-uninitialized"]
    return flags + [f"-isystem{path}" for path in include]
