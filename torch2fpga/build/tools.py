# SPDX-License-Identifier: Apache-2.0
"""The vendor's programs: which ones a target needs, where they are, which release they are.

Versions are read from what ``--version`` prints (as found in public logs: ``****** v++ v2022.1
(64-bit)``, ``Vitis HLS - High-Level Synthesis from C, C++ and OpenCL v2022.1 (64-bit)``, and the branch
that xclbinutil prints behind its own version, ``XRT Build Version: 2.13.466 (2022.1)``).
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

#: where the vendor's installers put things by default
ROOTS = (Path("/opt/xilinx"), Path("/opt/Xilinx"), Path("/tools/Xilinx"))
#: variables that the vendor's settings scripts set, each with a ``bin`` folder
VARIABLES = ("XILINX_VITIS", "XILINX_HLS", "XILINX_VIVADO", "XILINX_XRT")
PLATFORM_PATHS = "PLATFORM_REPO_PATHS"
#: seconds that a program may take to say its version (they start a Java or Tcl machine)
PATIENCE = 120.0

_PLAIN = re.compile(r"\bv(20\d\d\.\d)(?:\.\d+)?\b")
_XRT = re.compile(r"XRT Build Version:\s*[\d.]+\s*\((20\d\d\.\d)[^)]*\)")


@dataclass(frozen=True)
class Tool:
    """One program.

    Attributes:
        why: what it is needed for.
        path: where it was found in the search path or below a variable of the settings scripts.
        version: release, for example ``2022.1``; "" where it could not be asked or understood.
        problem: what is wrong with it, and what to do; "" if nothing.
        elsewhere: installations that hold it but are not set up in this shell.
    """

    name: str
    why: str
    path: Path | None = None
    version: str = ""
    problem: str = ""
    elsewhere: tuple[Path, ...] = ()


def needed(target: str, flow: str) -> dict[str, str]:
    """Program -> why a target needs it."""
    if target in ("csim", "csynth", "cosim"):
        if flow == "tcl":
            return {"vitis_hls": f"{target} of every kernel"}
        named = {"vitis-run": f"{target} of every kernel (unified command line)"}
        return named if target == "csim" else {**named, "v++": "synthesis of every kernel (--mode hls)"}
    found = {"v++": "compiles, links and packages", "vivado": "called by v++"}
    if target == "hw_emu":
        return {**found, "emconfigutil": "describes the emulated card"}
    return {**found, "xclbinutil": "reads the reached clock back"}


def find(name: str, why: str, env: Mapping[str, str], roots: Sequence[Path] | None = None) -> Tool:
    """Look for a program and ask it for its release.

    Args:
        env: the environment that it will run in.
        roots: where installations are looked for that are not set up (``ROOTS``).
    """
    path = _search(name, env)
    if path is None:
        lying = _installed(name, ROOTS if roots is None else roots)
        return Tool(name, why, problem=_not_there(name, why, lying), elsewhere=lying)
    version, problem = ask_version(path, env)
    return Tool(name, why, path, version, problem)


def _search(name: str, env: Mapping[str, str]) -> Path | None:
    """First hit in PATH, then in the ``bin`` folders of the settings' variables."""
    found = shutil.which(name, path=env.get("PATH", os.defpath))
    if found:
        return Path(found).absolute()
    for variable in VARIABLES:
        place = Path(env[variable]) / "bin" / name if env.get(variable) else None
        if place is not None and place.is_file() and os.access(place, os.X_OK):
            return place.absolute()
    return None


def _installed(name: str, roots: Sequence[Path]) -> tuple[Path, ...]:
    """Installations with this program: ``<root>/<product>/<release>/bin`` and ``<root>/xrt/bin``."""
    patterns = (f"*/20*/bin/{name}", f"20*/*/bin/{name}", f"xrt/bin/{name}")
    found = [hit for root in roots if root.is_dir() for pattern in patterns for hit in root.glob(pattern)]
    return tuple(sorted({hit for hit in found if hit.is_file()}))


def _not_there(name: str, why: str, lying: Sequence[Path]) -> str:
    if lying:
        folder = lying[-1].parent.parent
        script = "setup.sh" if folder.name == "xrt" else "settings64.sh"
        return f"installed in {folder} but not set up in this shell: source {folder / script}"
    product = "XRT (source /opt/xilinx/xrt/setup.sh)" if name == "xclbinutil" else "Vitis"
    settings = "" if name == "xclbinutil" else " and source its settings64.sh"
    places = ", ".join(("PATH", *VARIABLES, *map(str, ROOTS)))
    return f"not found; needed: {why}. Install {product}{settings} (looked in {places})"


def ask_version(path: Path, env: Mapping[str, str]) -> tuple[str, str]:
    """(release, problem) of a program, from its ``--version``."""
    try:
        done = subprocess.run(
            [str(path), "--version"], env=dict(env), stdin=subprocess.DEVNULL, capture_output=True,
            text=True, errors="replace", timeout=PATIENCE, check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return "", f"{path} --version did not answer in {PATIENCE:g} s"
    except OSError as error:
        return "", f"{path} cannot be started: {error.strerror or error}"
    text = done.stdout + done.stderr
    if done.returncode != 0:
        return "", f"{path} --version failed with status {done.returncode}: {_last(text)}"
    version = release(text)
    return version, "" if version else f"{path} --version was not understood: {_last(text)}"


def release(text: str) -> str:
    """The release in what a program printed; "" if there is none."""
    match = _XRT.search(text) or _PLAIN.search(text)
    return match[1] if match else ""


def _last(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return repr(lines[-1][:200]) if lines else "no output"


def number(version: str) -> tuple[int, int]:
    """``2022.1`` as something that can be compared."""
    year, _, part = version.partition(".")
    return int(year), int(part)


def outside(version: str, supported: tuple[str, str]) -> str:
    """What is wrong with a release; "" if it supports the card."""
    if number(supported[0]) <= number(version) <= number(supported[1]):
        return ""
    side = "does not support the card any more" if number(version) > number(supported[1]) else "is too old"
    return f"release {version} {side}: install one from {supported[0]} to {supported[1]}"


def find_platform(name: str, env: Mapping[str, str], roots: Sequence[Path] | None = None) -> list[Path]:
    """Files ``<name>.xpfm`` in PLATFORM_REPO_PATHS and below the installations, in that order."""
    folders = [Path(p) for p in env.get(PLATFORM_PATHS, "").split(":") if p]
    folders += [root / "platforms" for root in (ROOTS if roots is None else roots)]
    places = [place for f in folders for place in (f / name / f"{name}.xpfm", f / f"{name}.xpfm")]
    return [place for place in dict.fromkeys(places) if place.is_file()]
