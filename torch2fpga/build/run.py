# SPDX-License-Identifier: Apache-2.0
"""Running steps: side by side where they may, skipping what is done, stopping so that it can go on."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Protocol

from torch2fpga.build import BuildError
from torch2fpga.build.journal import Journal, locked, signature
from torch2fpga.build.logs import Tail, ending, error_lines, hints
from torch2fpga.build.steps import Step
from torch2fpga.build.tools import Tool

DONE, SKIPPED, FAILED, BLOCKED, STOPPED = "done", "skipped", "failed", "blocked", "stopped"
#: seconds between looks at the processes, and that they get to end when asked
PAUSE, GRACE = 0.1, 10.0


@dataclass(frozen=True)
class Outcome:
    """What became of a step.

    Attributes:
        state: ``done``, ``skipped`` (was done before), ``failed``, ``blocked`` (a step that it needs
            failed) or ``stopped`` (interrupted).
        log: where the tool's output is.
        errors: the tool's own error lines, and what is known about them.
    """

    step: Step
    state: str
    seconds: float = 0.0
    log: Path | None = None
    errors: tuple[str, ...] = ()


class View(Protocol):
    """Who watches."""

    def begin(self, step: Step, log: Path) -> None:
        """A step starts."""

    def progress(self, step: Step, seconds: float, line: str) -> None:
        """It is at work; the last interesting line of its log."""

    def end(self, outcome: Outcome) -> None:
        """It has ended, or does not run."""


@dataclass
class _Running:
    step: Step
    process: subprocess.Popen[bytes]
    signed: str
    log: Path
    tail: Tail
    since: float


def log_of(root: Path, target: str, step: Step) -> Path:
    """Log of a step: ``build/<target>/logs/<phase>-<kernel>.log``."""
    return root / "build" / target / "logs" / f"{step.name.replace(':', '-')}.log"


def pending(root: Path, steps: Sequence[Step], tools: Mapping[str, Tool], force: bool) -> dict[str, str]:
    """Step -> why it would run ("" if it would be skipped); starts nothing."""
    journal = Journal(root)
    why: dict[str, str] = {}
    for step in steps:
        before = [n for n in step.needs if why.get(n)]
        if force:
            why[step.name] = "asked for"
        elif before:
            why[step.name] = f"after {', '.join(before)}"
        else:
            try:
                signed = signature(root, step, tools[step.tool].version if step.tool in tools else "")
                why[step.name] = "" if journal.fresh(step, signed) else "not done, or something changed"
            except BuildError as error:
                why[step.name] = str(error)
    return why


class Runner:
    """Runs the steps of one target.

    Args:
        tools: programs that the check found.
        env: environment of the tools.
        jobs: most processes at a time.
        force: run steps that are done.
    """

    def __init__(
        self,
        root: Path,
        target: str,
        tools: Mapping[str, Tool],
        env: Mapping[str, str],
        view: View,
        jobs: int = 1,
        force: bool = False,
    ) -> None:
        self._root, self._target, self._tools, self._env = root, target, tools, env
        self._view, self._jobs, self._force = view, jobs, force
        self._running: dict[str, _Running] = {}
        self._outcomes: dict[str, Outcome] = {}

    def run(self, steps: Sequence[Step]) -> tuple[Outcome, ...]:
        """Run them; a failed step keeps only those that need it from running.

        Returns:
            One outcome a step, in the order given. After an interruption those that were not done are
            ``stopped``; running again goes on there.
        Raises:
            BuildError: if another build works on the project, or tools of one that died.
        """
        with locked(self._root), _interruptible():
            self._journal = Journal(self._root)
            self._journal.refuse_orphans()
            self.notice = self._journal.notice
            try:
                self._loop(list(steps))
            except KeyboardInterrupt:
                self._stop()
        for step in steps:
            if step.name not in self._outcomes:
                self._settle(Outcome(step, STOPPED))
        return tuple(self._outcomes[step.name] for step in steps)

    def _loop(self, waiting: list[Step]) -> None:
        while waiting or self._running:
            for step in list(waiting):
                if self._decided(step):
                    waiting.remove(step)
            for name in list(self._running):
                self._look(self._running[name])
            if self._running:
                time.sleep(PAUSE)

    def _decided(self, step: Step) -> bool:
        """Start a step, or settle it; False while it has to wait."""
        before = [self._outcomes.get(name) for name in step.needs]
        if any(o is not None and o.state in (FAILED, BLOCKED) for o in before):
            failed = [o.step.name for o in before if o is not None and o.state in (FAILED, BLOCKED)]
            self._settle(Outcome(step, BLOCKED, errors=(f"needs {', '.join(failed)}",)))
            return True
        if any(o is None for o in before) or len(self._running) >= self._jobs:
            return False
        try:
            signed = signature(self._root, step, self._tools[step.tool].version)
            if not self._force and self._journal.fresh(step, signed):
                self._settle(Outcome(step, SKIPPED))
            else:
                self._start(step, signed)
        except (BuildError, OSError) as error:
            self._settle(Outcome(step, FAILED, errors=(str(error),)))
        return True

    def _start(self, step: Step, signed: str) -> None:
        folder, log = self._root / step.folder, log_of(self._root, self._target, step)
        for place in (folder, log.parent, *((self._root / o).parent for o in step.outputs)):
            place.mkdir(parents=True, exist_ok=True)
        for output in step.outputs:  # what an earlier run left must not pass for this one's
            (self._root / output).unlink(missing_ok=True)
        if log.exists():
            log.replace(log.with_suffix(".log.old"))
        path = self._tools[step.tool].path
        assert path is not None  # the check has found it
        with log.open("wb") as stream:
            process = subprocess.Popen(
                [str(path), *step.command[1:]], cwd=folder, env={**self._env, **dict(step.env)},
                stdin=subprocess.DEVNULL, stdout=stream, stderr=subprocess.STDOUT, start_new_session=True,
            )  # fmt: skip
        self._running[step.name] = _Running(step, process, signed, log, Tail(log), time.monotonic())
        self._journal.begin(step, process.pid)
        self._view.begin(step, log)

    def _look(self, running: _Running) -> None:
        """Take in progress, or the end."""
        status = running.process.poll()
        seconds = time.monotonic() - running.since
        if status is None:
            self._view.progress(running.step, seconds, running.tail.read())
            return
        del self._running[running.step.name]
        step, log = running.step, running.log
        missing = [name for name in step.outputs if not (self._root / name).is_file()]
        if status == 0 and not missing:
            self._journal.end(step, running.signed, seconds, self._tools[step.tool].version)
            self._settle(Outcome(step, DONE, seconds, log))
            return
        self._journal.abandon(step)
        what = ending(status) if status else f"status 0, but there is no {', '.join(missing)}"
        lines = error_lines(log)
        self._settle(Outcome(step, FAILED, seconds, log, (f"{step.tool}: {what}", *lines, *hints(lines))))

    def _settle(self, outcome: Outcome) -> None:
        self._outcomes[outcome.step.name] = outcome
        self._view.end(outcome)

    def _stop(self) -> None:
        """End what runs: ask its process group, then insist."""
        for running in self._running.values():
            _signal(running.process, signal.SIGTERM)
        limit = time.monotonic() + GRACE
        for running in self._running.values():
            with contextlib.suppress(subprocess.TimeoutExpired):
                running.process.wait(max(0.0, limit - time.monotonic()))
            _signal(running.process, signal.SIGKILL)
            running.process.wait()
            self._journal.abandon(running.step)
            seconds = time.monotonic() - running.since
            self._settle(Outcome(running.step, STOPPED, seconds, running.log))
        self._running.clear()


def _signal(process: subprocess.Popen[bytes], number: signal.Signals) -> None:
    """Signal a process and all that it started (it leads a group of its own)."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, number)


@contextlib.contextmanager
def _interruptible() -> Iterator[None]:
    """SIGTERM and SIGHUP end a build as Ctrl-C does (in the main thread, where handlers can be set)."""

    def stop(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before: dict[signal.Signals, Callable[[int, FrameType | None], object] | int | None] = {}
    with contextlib.suppress(ValueError):  # not the main thread
        for number in (signal.SIGTERM, signal.SIGHUP):
            before[number] = signal.signal(number, stop)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
