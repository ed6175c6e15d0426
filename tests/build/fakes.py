# SPDX-License-Identifier: Apache-2.0
"""A folder of FAKE vendor tools (``fake_tool.py`` under their names), and what was asked of them."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ALL = ("vitis_hls", "vitis-run", "v++", "vivado", "xclbinutil", "platforminfo", "emconfigutil")
PLATFORM = "xilinx_u280_gen3x16_xdma_1_202211_1"
SCRIPT = Path(__file__).with_name("fake_tool.py")


@dataclass(frozen=True)
class Fakes:
    """The folder, and the environment in which the fakes are found."""

    folder: Path
    platforms: Path

    @property
    def env(self) -> dict[str, str]:
        """Nothing but the fakes: no tool of the machine can be met by accident."""
        return {"PATH": str(self.folder), "PLATFORM_REPO_PATHS": str(self.platforms), "LC_ALL": "C.UTF-8"}

    def behave(self, **behaviour: Any) -> None:
        """What they are to do from now on; without arguments all is well."""
        (self.folder / "behaviour.json").write_text(json.dumps({"release": "2022.1", **behaviour}))

    def calls(self) -> list[dict[str, Any]]:
        """Calls that asked for work, in order."""
        file = self.folder / "calls.jsonl"
        lines = file.read_text().splitlines() if file.exists() else []
        return [
            c for c in map(json.loads, lines) if c["args"] != ["--version"] and c["tool"] != "platforminfo"
        ]

    def end_hanging(self) -> None:
        """End fakes of this folder that a failed test has left at work."""
        for file in self.folder.glob("hangs-*"):
            process = int(file.read_text() or "0")
            with contextlib.suppress(OSError):
                if str(self.folder) in Path(f"/proc/{process}/cmdline").read_text(errors="replace"):
                    os.kill(process, signal.SIGKILL)

    def forget(self) -> None:
        """Forget the calls so far."""
        (self.folder / "calls.jsonl").unlink(missing_ok=True)


def install(folder: Path, names: Sequence[str] = ALL) -> Fakes:
    """Write fakes of some tools and a platform; they behave until told otherwise."""
    folder.mkdir(parents=True)
    text = SCRIPT.read_text(encoding="utf-8")
    for name in names:
        path = folder / name
        path.write_text(f"#!{sys.executable} -IS\n{text}", encoding="utf-8")
        path.chmod(0o755)
    platforms = folder / "platforms"
    (platforms / PLATFORM).mkdir(parents=True)
    (platforms / PLATFORM / f"{PLATFORM}.xpfm").write_text("a fake xpfm of the tests\n")
    found = Fakes(folder, platforms)
    found.behave()
    return found
