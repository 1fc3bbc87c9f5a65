"""The command line of `scripts/peers`."""
from __future__ import annotations

import argparse
import fcntl
import os
import shutil
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from . import builders, processes, registry, root
from .settings import Failure, Settings

PARTS: dict[str, Callable[[Settings], None]] = {
    "registry": registry.start,
    "store": lambda settings: builders.start_daemon(settings, "store"),
    "classic": lambda settings: builders.start_daemon(settings, "classic"),
    "buildah": lambda settings: (root.make(settings), registry.start(settings), builders.write_buildah_settings(settings)),
}


def start(settings: Settings, parts: list[str]) -> None:
    """Starts the named parts (and what they need), one caller at a time."""
    if os.geteuid() != 0:
        raise Failure("the peers need root (mounts, bridges, dockerd)")
    _own_folder(settings.home)
    with open(settings.home / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        for part in parts or list(PARTS):
            PARTS[part](settings)


def _own_folder(home: Path) -> None:
    """Makes the folder; one that another user made could lead root anywhere."""
    if not home.exists():
        print(f"keeping the peers in {home} (ASHLAR_PEERS_DIR names another place)", file=sys.stderr, flush=True)
        home.mkdir(parents=True, exist_ok=True)
    found = home.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid():
        raise Failure(f"{home} is not a folder of this user: remove it, or set ASHLAR_PEERS_DIR to another place")


def stop(settings: Settings, wipe: bool) -> None:
    """Ends what `start` started; `wipe` removes the folder too (never a root that ASHLAR_PEERS_ROOT names elsewhere)."""
    for name in sorted(processes.started_names(settings), key=lambda n: n == "registry"):
        print(f"{name}: {'stopped' if processes.stop(settings, name) else 'was not running'}")
    builders.remove_bridges(settings)
    if wipe:
        _unmount_below(settings.home)
        shutil.rmtree(settings.home, ignore_errors=True)
        print(f"removed {settings.home}")


def _unmount_below(folder: Path) -> None:
    """Unmounts what a killed dockerd or buildah left mounted, deepest first."""
    points = [line.split()[1] for line in Path("/proc/mounts").read_text().splitlines()]
    for point in sorted((p for p in points if p.startswith(f"{folder}/")), reverse=True):
        subprocess.run(["umount", "-l", point], check=False)


def status(settings: Settings) -> None:
    """Prints what runs and where it listens."""
    print(f"home      {settings.home}")
    print(f"root      {settings.root}{'' if settings.root.exists() else ' (not made)'}")
    for name in ("registry", *(f"dockerd-{d}" for d in builders.DAEMONS)):
        pid = processes.pid_of(settings, name)
        place = f"http://{settings.registry}" if name == "registry" else f"unix://{settings.socket(name[8:])}"
        print(f"{name:16} {place} {'pid ' + str(pid) if pid else 'not running'}")


def parser() -> argparse.ArgumentParser:
    """The options."""
    top = argparse.ArgumentParser(prog="peers", description="Starts and stops the builders and the registry that Ashlar is compared with.",
                                  epilog="Settings: ASHLAR_PEERS_DIR, ASHLAR_PEERS_ROOT, ASHLAR_PEERS_REGISTRY, ASHLAR_PEERS_SUITE, ASHLAR_PEERS_TLS.")
    commands = top.add_subparsers(dest="command", required=True)
    starting = commands.add_parser("start", help="start the named parts (default: all)")
    starting.add_argument("parts", nargs="*", metavar="PART", choices=[[], *PARTS], help=", ".join(PARTS))
    stopping = commands.add_parser("stop", help="stop everything that was started")
    stopping.add_argument("--wipe", action="store_true", help="remove the folder with all data too")
    commands.add_parser("status", help="say what runs")
    return top


def main() -> int:
    """Runs one command; 1 on failure, with the reason on stderr."""
    options, settings = parser().parse_args(), Settings.from_environment()
    try:
        if options.command == "start":
            start(settings, options.parts)
            status(settings)
        elif options.command == "stop":
            stop(settings, options.wipe)
        else:
            status(settings)
    except (Failure, subprocess.CalledProcessError) as failure:
        print(f"error: {failure}", file=sys.stderr)
        return 1
    return 0
