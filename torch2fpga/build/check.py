# SPDX-License-Identifier: Apache-2.0
"""Everything that a build needs, looked at before anything starts, and said all at once."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch2fpga.build import BuildError
from torch2fpga.build.folder import Folder
from torch2fpga.build.tools import PATIENCE, Tool, find, find_platform, needed, outside

FOUND, ADVICE, MISSING = "found", "advice", "missing"
GIB = 1 << 30

#: GiB of disk and of memory that a target wants. A rule of thumb of ours: nobody here has run the
#: tools, and the vendor's installation guide gives no figures per design. For scale: one public report
#: of a failed C synthesis of a large loop ended at 39.7 GB of memory.
WANTED = {"csim": (2, 8), "csynth": (5, 16), "cosim": (20, 16), "hw_emu": (30, 32), "hw": (100, 64)}

LICENCES = ("XILINXD_LICENSE_FILE", "LM_LICENSE_FILE")


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        state: ``found``, ``advice`` (the build may start) or ``missing`` (it may not).
        what: program, platform, disk, ...
        text: what was found, or what is wrong and what to do.
    """

    state: str
    what: str
    text: str

    def __str__(self) -> str:
        return f"{self.state:8}{self.what}: {self.text}"


@dataclass(frozen=True)
class Check:
    """Result: what was found and what is missing, and the programs to run."""

    target: str
    findings: tuple[Finding, ...]
    tools: Mapping[str, Tool]

    @property
    def ok(self) -> bool:
        """Can the build start?"""
        return not self.missing

    @property
    def missing(self) -> tuple[Finding, ...]:
        """What keeps the build from starting."""
        return tuple(f for f in self.findings if f.state == MISSING)

    def require(self) -> None:
        """Raise for everything that is missing.

        Raises:
            BuildError: with all of it.
        """
        if self.missing:
            lines = "".join(f"\n  - {f.what}: {f.text}" for f in self.missing)
            raise BuildError(f"{self.target} cannot start, {len(self.missing)} things are missing:{lines}")

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return {
            "target": self.target,
            "ok": self.ok,
            "findings": [{"state": f.state, "what": f.what, "text": f.text} for f in self.findings],
        }


def check(
    folder: Folder, target: str, flow: str, env: Mapping[str, str], roots: Sequence[Path] | None = None
) -> Check:
    """Look at everything that a target needs; starts programs only to ask for their release.

    Args:
        env: environment that the tools will run in.
        roots: where installations are looked for; the vendor's defaults if not given.
    """
    tools = {name: find(name, why, env, roots) for name, why in needed(target, flow).items()}
    findings = [*_project(folder, target), *_tools(tools, folder, flow), *_releases(tools)]
    if target in ("hw_emu", "hw"):
        findings.append(_platform(folder, env, roots))
    findings += [*_machine(folder.root, target), _licence(target, env)]
    return Check(target, tuple(findings), tools)


def _project(folder: Folder, target: str) -> Iterator[Finding]:
    root = str(folder.root)
    if any(c.isspace() for c in root):
        text = f"{root!r} has blanks in it, and the tools split their flags there: move the project"
        yield Finding(MISSING, "path", text)
    if not root.isascii() or any(c in root for c in "$\\'\";&|<>*?{}[]()!#"):
        text = f"{root!r} has characters that Tcl or make may take for something else: move the project"
        yield Finding(MISSING, "path", text)
    if not folder.packed and target in ("csim", "cosim"):
        text = f"no weights and golden vectors yet, which {target} compares with: torch2fpga pack brings them"
        yield Finding(MISSING, "project", text)
    for problem in folder.problems:
        yield Finding(MISSING, "project", problem)
    if not folder.problems:
        count = len(folder.kernels)
        text = f"{folder.design}, {count} kernel{'s' if count != 1 else ''}, files intact"
        yield Finding(FOUND, "project", text)
    if not os.access(folder.root, os.W_OK):
        yield Finding(MISSING, "project", f"{root} cannot be written to")


def _tools(tools: Mapping[str, Tool], folder: Folder, flow: str) -> Iterator[Finding]:
    for tool in tools.values():
        if tool.problem:
            yield Finding(MISSING, tool.name, tool.problem)
            continue
        wrong = "" if tool.name == "xclbinutil" else outside(tool.version, folder.tools)
        if not wrong and flow == "cfg" and tool.name == "vitis-run" and tool.version != "2023.2":
            wrong = f"release {tool.version}: the unified command line starts with 2023.2; use --flow tcl"
        text = f"{tool.path}, {wrong or tool.version}"
        yield Finding(MISSING if wrong else FOUND, tool.name, text)


def _releases(tools: Mapping[str, Tool]) -> Iterator[Finding]:
    """Programs of one installation should be of one release (XRT has its own)."""
    seen = {t.version for t in tools.values() if t.version and t.name != "xclbinutil"}
    if len(seen) > 1:
        yield Finding(ADVICE, "releases", f"programs of different releases: {', '.join(sorted(seen))}")


def _platform(folder: Folder, env: Mapping[str, str], roots: Sequence[Path] | None) -> Finding:
    """The platform's file, and whether platforminfo (where there is one) can read it."""
    hits = find_platform(folder.platform, env, roots)
    if not hits:
        text = (
            f"{folder.platform}.xpfm not found (looked in PLATFORM_REPO_PATHS and /opt/xilinx/platforms): "
            "install the card's development package, or add its folder to PLATFORM_REPO_PATHS"
        )
        return Finding(MISSING, "platform", text)
    tool = shutil.which("platforminfo", path=env.get("PATH", os.defpath))
    if tool is None:
        return Finding(FOUND, "platform", f"{hits[0]} (platforminfo is not there to look into it)")
    try:
        done = subprocess.run(
            [tool, "-p", str(hits[0])], env=dict(env), stdin=subprocess.DEVNULL, capture_output=True,
            text=True, errors="replace", timeout=PATIENCE, check=False,
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired) as error:
        return Finding(ADVICE, "platform", f"{hits[0]}; platforminfo gave no answer: {error}")
    if done.returncode != 0:
        last = ([x for x in (done.stdout + done.stderr).splitlines() if x.strip()] or ["no output"])[-1]
        return Finding(MISSING, "platform", f"platforminfo cannot read {hits[0]}: {last[:200]}")
    return Finding(FOUND, "platform", str(hits[0]))


def _machine(root: Path, target: str) -> Iterator[Finding]:
    """Free disk and memory against our rule of thumb: never more than advice."""
    disk, memory = WANTED[target]
    free = shutil.disk_usage(root).free / GIB
    rule = "a rule of thumb of torch2fpga, unconfirmed"
    state = FOUND if free >= disk else ADVICE
    yield Finding(state, "disk", f"{free:.0f} GiB free, {target} may want {disk} ({rule})")
    have = available_memory() / GIB
    state = FOUND if have >= memory else ADVICE
    yield Finding(state, "memory", f"{have:.0f} GiB available, {target} may want {memory} ({rule})")


def available_memory() -> int:
    """Bytes that new programs can use without swapping (Linux; all memory elsewhere)."""
    try:
        for line in Path("/proc/meminfo").read_text(encoding="ascii").splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    except (OSError, ValueError, IndexError):
        pass
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _licence(target: str, env: Mapping[str, str]) -> Finding:
    """A hint: whether a licence is there can only be seen by running the tools."""
    if target == "csim":
        return Finding(FOUND, "licence", "C simulation takes none")
    given = [f"{name} is set" for name in LICENCES if env.get(name)]
    text = "; ".join(given) or f"neither {' nor '.join(LICENCES)} is set"
    return Finding(
        FOUND if given else ADVICE,
        "licence",
        f"{text}; a missing one shows as ERROR: [Common 17-345] once synthesis starts",
    )
