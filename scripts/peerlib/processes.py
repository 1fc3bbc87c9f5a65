"""Processes that outlive the command that started them, found again by a pid file.

A pid file holds the pid and the start time of the process in clock ticks, so that a pid that was given to another process
is never taken for ours, and never killed.
"""
from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from .settings import Failure, Settings

STOP_SECONDS = 15
POLL_SECONDS = 0.05
START_TIME_FIELD = 19  # of /proc/PID/stat, counted after the command's closing parenthesis


def _start_time(pid: int) -> str | None:
    """The start time of a process, or None when it is gone."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    fields = stat.rpartition(")")[2].split()
    return None if fields[0] == "Z" else fields[START_TIME_FIELD]


def _pid_file(settings: Settings, name: str) -> Path:
    return settings.home / "pids" / name


def pid_of(settings: Settings, name: str) -> int | None:
    """The pid of the process that was started as `name`, or None when it no longer runs."""
    try:
        pid, started = _pid_file(settings, name).read_text().split()
    except (OSError, ValueError):
        return None
    return int(pid) if _start_time(int(pid)) == started else None


def start(settings: Settings, name: str, argv: Sequence[str], ready: Callable[[], bool], seconds: float = 30) -> int:
    """Starts `argv` in a session of its own unless it runs, waits until `ready`, and returns the pid."""
    running = pid_of(settings, name)
    if running is not None:
        return running
    log = settings.log(name)
    for folder in (log.parent, _pid_file(settings, name).parent):
        folder.mkdir(parents=True, exist_ok=True)
    with open(log, "wb") as output:
        child = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True)
    _pid_file(settings, name).write_text(f"{child.pid} {_start_time(child.pid)}\n")
    deadline = time.monotonic() + seconds
    while not ready():
        if child.poll() is not None or time.monotonic() > deadline:
            state = "ended" if child.poll() is not None else f"was not ready after {seconds:.0f} s"
            tail = "\n".join(log.read_text(errors="replace").splitlines()[-5:])
            raise Failure(f"{name} {state}; the end of {log}:\n{tail}")
        time.sleep(POLL_SECONDS)
    return child.pid


def _send(pid: int, which: signal.Signals) -> None:
    """Sends a signal to a process that may end of itself at any moment."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, which)


def stop(settings: Settings, name: str) -> bool:
    """Ends the process that was started as `name`; False when it did not run."""
    pid = pid_of(settings, name)
    if pid is not None:
        _send(pid, signal.SIGTERM)
        deadline = time.monotonic() + STOP_SECONDS
        while pid_of(settings, name) is not None and time.monotonic() < deadline:
            time.sleep(POLL_SECONDS)
        if pid_of(settings, name) is not None:
            _send(pid, signal.SIGKILL)
    _pid_file(settings, name).unlink(missing_ok=True)
    return pid is not None


def started_names(settings: Settings) -> list[str]:
    """Names of everything with a pid file."""
    folder = settings.home / "pids"
    return sorted(p.name for p in folder.iterdir()) if folder.is_dir() else []
