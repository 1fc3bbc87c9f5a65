"""Debian packages of the host that the peers need."""
from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

from .settings import Failure


def need(program: str, package: str) -> None:
    """Installs `package` when `program` is missing; fails with its name when that does not help."""
    if shutil.which(program):
        return
    subprocess.run(["apt-get", "install", "-y", "-q", package], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                   stderr=subprocess.DEVNULL, check=False)
    if not shutil.which(program):
        raise Failure(f"{program} is missing and could not be installed: apt-get install {package}")


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
