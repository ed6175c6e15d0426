# SPDX-License-Identifier: Apache-2.0
"""What has been built: ``build/state.json``, written whole or not at all, and the lock beside it."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from torch2fpga.build import BuildError
from torch2fpga.build.folder import digest
from torch2fpga.build.steps import Step

STATE, LOCK = "build/state.json", "build/.lock"
FORMAT, FORMAT_VERSION = "torch2fpga build state", 1


def signature(root: Path, step: Step, version: str) -> str:
    """Digest of everything that decides what a step makes: command, tool's release, inputs' contents.

    Raises:
        BuildError: with the inputs that are missing.
    """
    gone = [name for name in step.inputs if not (root / name).is_file()]
    if gone:
        raise BuildError(f"{step.name} has no {', '.join(gone)}")
    inputs = {name: digest(root / name) for name in step.inputs}
    text = json.dumps([step.command, step.folder, step.env, version, inputs], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


class Journal:
    """Steps that are done, and processes that were started for those that are not.

    Attributes:
        notice: why an earlier state was not used; "" if it was, or there was none.
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        self._file = root / STATE
        self.notice = ""
        self._steps: dict[str, dict[str, Any]] = {}
        self._running: dict[str, dict[str, int]] = {}
        self._load()

    def _load(self) -> None:
        try:
            data = json.loads(self._file.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return
        except (OSError, ValueError, RecursionError) as error:
            self.notice = f"{STATE} cannot be read ({error}): every step runs again"
            return
        good = isinstance(data, dict) and (data.get("format"), data.get("format_version")) == (
            FORMAT,
            FORMAT_VERSION,
        )
        steps, running = (data.get("steps"), data.get("running")) if good else (None, None)
        if not isinstance(steps, dict) or not isinstance(running, dict):
            self.notice = f"{STATE} was not understood: every step runs again"
            return
        self._steps = {str(k): v for k, v in steps.items() if isinstance(v, dict)}
        self._running = {str(k): v for k, v in running.items() if isinstance(v, dict)}

    def fresh(self, step: Step, signed: str) -> bool:
        """Was the step done with this signature, and is what it made still there?"""
        entry = self._steps.get(step.name, {})
        outputs = entry.get("outputs")
        if entry.get("signature") != signed or not isinstance(outputs, Mapping):
            return False
        return set(outputs) == set(step.outputs) and all(
            (self._root / name).is_file() and digest(self._root / name) == outputs[name]
            for name in step.outputs
        )

    def current(self, step: Step) -> bool:
        """Is what the step made that of the files as they are now (by whatever release made it)?"""
        release = self._steps.get(step.name, {}).get("release")
        try:
            return isinstance(release, str) and self.fresh(step, signature(self._root, step, release))
        except BuildError:
            return False

    def begin(self, step: Step, process: int) -> None:
        """A process works on the step: what it made before no longer counts."""
        self._steps.pop(step.name, None)
        self._running[step.name] = {"process": process, "ticks": started(process)}
        self._save()

    def end(self, step: Step, signed: str, seconds: float, version: str) -> None:
        """The step is done."""
        self._running.pop(step.name, None)
        self._steps[step.name] = {
            "signature": signed,
            "outputs": {name: digest(self._root / name) for name in step.outputs},
            "seconds": round(seconds, 1),
            "release": version,
        }
        self._save()

    def abandon(self, step: Step) -> None:
        """The step's process has ended and did not do it."""
        self._running.pop(step.name, None)
        self._steps.pop(step.name, None)
        self._save()

    def refuse_orphans(self) -> None:
        """An earlier build may have died and left its tools at work.

        Raises:
            BuildError: with every such process.
        """
        alive = [
            f"{name} (process {entry['process']})"
            for name, entry in self._running.items()
            if isinstance(entry.get("process"), int)
            and entry.get("ticks", 0) == started(entry["process"]) != 0
        ]
        if alive:
            raise BuildError(
                f"tools of an earlier build are still at work: {', '.join(alive)}; wait for them, or end "
                "them with kill"
            )

    def _save(self) -> None:
        data = {
            "format": FORMAT,
            "format_version": FORMAT_VERSION,
            "steps": self._steps,
            "running": self._running,
        }
        write_whole(self._file, json.dumps(data, indent=1, sort_keys=True) + "\n")


def started(process: int) -> int:
    """When a process started, in clock ticks since boot (Linux); 0 if there is none, or a dead one."""
    try:
        text = Path(f"/proc/{process}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return 0
    fields = text.rpartition(")")[2].split()  # behind the name, which may hold anything
    return 0 if fields[0] in "ZX" else int(fields[19])


def write_whole(file: Path, text: str) -> None:
    """Write a file so that a reader sees the old or the new one, never a part."""
    file.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=file.parent, prefix=f".{file.name}-")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as stream:
            stream.write(text)
            stream.flush()
            os.fsync(stream.fileno())
        os.chmod(name, 0o644)
        os.replace(name, file)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(name)
        raise


@contextlib.contextmanager
def locked(root: Path) -> Iterator[None]:
    """Nobody else builds this project meanwhile.

    Raises:
        BuildError: if somebody does.
    """
    file = root / LOCK
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("w") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise BuildError(f"another torch2fpga build works on {root}; wait for it") from error
        yield
