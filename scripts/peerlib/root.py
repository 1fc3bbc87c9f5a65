"""A root file system of Debian's newest suite, for the newest BuildKit and buildah that are packaged."""
from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

from .packages import debian_mirror, need
from .settings import Failure, Settings

PACKAGES = ("docker.io", "docker-cli", "docker-buildx", "buildah", "crun", "runc", "iptables", "ca-certificates",
            "netavark", "xz-utils", "zstd")
ENTER = Path(__file__).with_name("enter-root")
LOADER = "lib64/ld-linux-x86-64.so.2"
LIBRARIES = "usr/lib/x86_64-linux-gnu"
BUILDX = "usr/libexec/docker/cli-plugins/docker-buildx"


def make(settings: Settings) -> None:
    """Makes the root by mmdebstrap unless it is there (about a minute, 800 MB)."""
    if (settings.root / "usr/sbin/dockerd").exists():
        _remember(settings)
        return
    need("mmdebstrap", "mmdebstrap")
    settings.home.mkdir(parents=True, exist_ok=True)
    partial = settings.root.with_name(settings.root.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    log = settings.log("mmdebstrap")
    log.parent.mkdir(parents=True, exist_ok=True)
    print(f"making a root of Debian {settings.suite} in {settings.root} (once, about a minute; log: {log})",
          file=sys.stderr, flush=True)
    with open(log, "wb") as output:
        made = subprocess.run(["mmdebstrap", "--variant=minbase", "--aptopt=Acquire::Check-Valid-Until \"false\"",
                               "--dpkgopt=path-exclude=/usr/share/doc/*", "--dpkgopt=path-exclude=/usr/share/man/*",
                               "--include=" + ",".join(PACKAGES), settings.suite, str(partial), debian_mirror()],
                              stdin=subprocess.DEVNULL, stdout=output, stderr=output, check=False)
    if made.returncode != 0:
        raise Failure(f"mmdebstrap could not make a root of {settings.suite}; see {log}")
    partial.rename(settings.root)
    _remember(settings)


def _remember(settings: Settings) -> None:
    """Links a root that lies elsewhere into our folder, so that later commands find it without ASHLAR_PEERS_ROOT."""
    usual = settings.home / "root"
    if settings.root != usual and not usual.exists():
        settings.home.mkdir(parents=True, exist_ok=True)
        usual.symlink_to(settings.root)


def inside(settings: Settings, *argv: str) -> list[str]:
    """A command that runs `argv` with the root as its /, in a new mount namespace; sees `home` at its usual path."""
    return ["unshare", "-m", str(ENTER), str(settings.root), str(settings.home), *argv]


def on_host(settings: Settings, program: str, *argv: str) -> list[str]:
    """A command that runs a program of the root on the host's own file tree, with the root's libraries."""
    return [str(settings.root / LOADER), "--library-path", str(settings.root / LIBRARIES),
            str(settings.root / program), *argv]


def buildx(settings: Settings, *argv: str) -> list[str]:
    """A `docker buildx` command that reads contexts and writes outputs anywhere on the host."""
    return on_host(settings, BUILDX, *argv)
