"""Debian packages of the host that the peers need."""
from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

from .settings import Failure


def need(program: str, package: str) -> None:
    """Installs `package` when `program` is missing; fails with its name when that does not help."""
    if shutil.which(program):
        return
    print(f"installing {package}", file=sys.stderr, flush=True)
    if not _apt_get("install", "-y", "-q", "--no-install-recommends", package):
        # A fresh machine has no package lists, or old ones.
        _apt_get("update", "-q")
        _apt_get("install", "-y", "-q", "--no-install-recommends", package)
    if not shutil.which(program):
        raise Failure(f"{program} is missing and could not be installed: apt-get install {package}")


def _apt_get(*words: str) -> bool:
    """Runs apt-get without questions; True when it succeeded."""
    done = subprocess.run(["apt-get", *words], env=os.environ | {"DEBIAN_FRONTEND": "noninteractive"},
                          stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False)
    return done.returncode == 0


def debian_mirror() -> str:
    """The Debian mirror that the host itself uses, so that a machine behind a proxy or cache stays on it."""
    sources = [Path("/etc/apt/sources.list"), *sorted(Path("/etc/apt/sources.list.d").glob("*"))]
    for path in (p for p in sources if p.is_file()):
        for line in path.read_text(errors="replace").splitlines():
            words = line.split()
            is_source = line.startswith(("URIs:", "deb ")) and "security" not in line
            urls = [w for w in words if w.startswith(("http://", "https://"))]
            if is_source and urls:
                return urls[0]
    return "http://deb.debian.org/debian"
