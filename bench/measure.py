"""Runs one command and takes its time and memory."""
from __future__ import annotations

import os
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

RUN_SECONDS_MAX = 900


class Failed(Exception):
    """A build that failed; the text is its command and the end of its output."""


@dataclass(frozen=True)
class Sample:
    """Seconds on the wall clock, and the peak resident memory in KiB of the builder's processes together."""

    seconds: float
    peak_kib: int


def run(commands: Sequence[Sequence[str]], environment: Mapping[str, str], daemons: Sequence[int] = ()) -> Sample:
    """Runs the commands one after the other. `daemons` are pids of the builder's servers, whose peak is added.

    The peak of a command is that of its largest process (wait4), steps included; the peak of a daemon is since now.
    """
    for pid in daemons:
        Path(f"/proc/{pid}/clear_refs").write_text("5")
    started, largest = time.monotonic(), 0
    for command in commands:
        largest = max(largest, _run_one(command, environment))
    seconds = time.monotonic() - started
    return Sample(seconds, largest + sum(_peak_kib(pid) for pid in daemons))


def _run_one(command: Sequence[str], environment: Mapping[str, str]) -> int:
    """Runs a command to its end and returns its peak in KiB; raises `Failed`."""
    with tempfile.TemporaryFile() as output:
        child = subprocess.Popen(["timeout", str(RUN_SECONDS_MAX), *command], env=dict(environment),
                                 stdin=subprocess.DEVNULL, stdout=output, stderr=output)
        _, status, usage = os.wait4(child.pid, 0)
        child.returncode = os.waitstatus_to_exitcode(status)
        if child.returncode != 0:
            output.seek(0)
            tail = output.read().decode(errors="replace")[-2000:]
            raise Failed(f"exit code {child.returncode}: {' '.join(command)}\n{tail}")
    return usage.ru_maxrss


def _peak_kib(pid: int) -> int:
    """The peak resident memory of a process since `clear_refs`."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1])
    return 0


def descendants(pid: int) -> list[int]:
    """A process and all below it."""
    found = [pid]
    for task in Path(f"/proc/{pid}/task").iterdir():
        for child in (task / "children").read_text().split():
            found += descendants(int(child))
    return found
