"""The builders: two dockerd (for the BuildKit inside) and buildah.

`store` keeps images in the containerd store, so its BuildKit can export an OCI archive; `classic` (overlay2) is the
faster one in most rows of the benchmark.
"""
from __future__ import annotations

import hashlib
import json
import os
import resource
import socket
import subprocess
from collections.abc import Mapping
from pathlib import Path

from . import processes, registry, root
from .packages import need
from .settings import Settings

DAEMONS = {"store": {"containerd-snapshotter": True}, "classic": {"buildkit": True}}
OLD_CLI = Path("old-cli")
REGISTRIES_CONF = """\
unqualified-search-registries = ["docker.io"]
short-name-mode = "permissive"
[[registry]]
location = "docker.io"
[[registry.mirror]]
location = "{address}"
insecure = true
[[registry]]
location = "{address}"
insecure = true
"""


def start_daemon(settings: Settings, name: str) -> None:
    """Starts the dockerd `name` with a bridge of its own; it touches neither iptables nor another Docker."""
    if processes.pid_of(settings, f"dockerd-{name}") is not None:
        return
    registry.start(settings)
    need("ip", "iproute2")
    root.make(settings)
    bridge = _bridge(settings, name)
    _make_bridge(*bridge)
    home = settings.home / name
    home.mkdir(parents=True, exist_ok=True)
    for stale in ("dockerd.pid", "docker.sock"):
        (home / stale).unlink(missing_ok=True)
    config = home / "daemon.json"
    config.write_text(json.dumps({
        "data-root": f"{home}/data", "exec-root": f"{home}/exec", "pidfile": f"{home}/dockerd.pid",
        "hosts": [f"unix://{settings.socket(name)}"], "bridge": bridge[0], "iptables": False, "ip6tables": False,
        "registry-mirrors": [f"http://{settings.registry}"], "insecure-registries": [settings.registry],
        "features": DAEMONS[name], "log-level": "warn"} | _tls(settings, name), indent=1))
    processes.start(settings, f"dockerd-{name}", root.inside(settings, "/usr/sbin/dockerd", "--config-file", str(config)),
                    lambda: pings(settings.socket(name)))


def _tls(settings: Settings, name: str) -> dict[str, object]:
    """What makes a dockerd listen for holders of a certificate too."""
    if settings.tls is None:
        return {}
    return {"hosts": [f"unix://{settings.socket(name)}", f"tcp://{settings.tls}"], "tlsverify": True,
            "tlscacert": f"{settings.home}/tls/ca.pem", "tlscert": f"{settings.home}/tls/server-cert.pem",
            "tlskey": f"{settings.home}/tls/server-key.pem"}


def _bridge(settings: Settings, daemon: str) -> tuple[str, str]:
    """Name and address of a daemon's bridge; folders have their own, so that several sets of peers can run."""
    mark, number = hashlib.sha256(bytes(settings.home)).digest(), list(DAEMONS).index(daemon)
    return f"ashp{mark.hex()[:6]}{number}", f"172.{30 + number}.{mark[3]}.1/24"


def _make_bridge(bridge: str, address: str) -> None:
    """Adds the bridge unless it is there."""
    if Path(f"/sys/class/net/{bridge}").exists():
        return
    for words in (["link", "add", bridge, "type", "bridge"], ["addr", "add", address, "dev", bridge],
                  ["link", "set", bridge, "up"]):
        subprocess.run(["ip", *words], check=True)


def remove_bridges(settings: Settings) -> None:
    """Takes the bridges of these peers away again."""
    for bridge, _ in (_bridge(settings, daemon) for daemon in DAEMONS):
        if Path(f"/sys/class/net/{bridge}").exists():
            subprocess.run(["ip", "link", "del", bridge], check=False)


def pings(path: Path) -> bool:
    """True when a dockerd answers on this socket."""
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as link:
            link.settimeout(2)
            link.connect(str(path))
            link.sendall(b"GET /_ping HTTP/1.0\r\nHost: docker\r\n\r\n")
            return b" 200 " in link.recv(256)
    except OSError:
        return False


def environment(settings: Settings, daemon: str) -> Mapping[str, str]:
    """The environment in which a docker or buildx client reaches `daemon`, and nothing of the user's own settings."""
    config = settings.home / "client"
    config.mkdir(parents=True, exist_ok=True)
    kept = {key: os.environ[key] for key in ("PATH", "LANG", "TMPDIR") if key in os.environ}
    return kept | {"HOME": str(config), "DOCKER_CONFIG": str(config), "DOCKER_BUILDKIT": "1",
                   "DOCKER_HOST": f"unix://{settings.socket(daemon)}", "BUILDX_METADATA_PROVENANCE": "disabled"}


def old_docker_cli(settings: Settings) -> Path | None:
    """The host suite's docker client unpacked into our folder: 20.10 starts in half of buildx's time. None: no such package."""
    place = settings.home / OLD_CLI
    program = place / "usr/bin/docker"
    if program.exists():
        return program
    place.mkdir(parents=True, exist_ok=True)
    if subprocess.run(["apt-get", "download", "-q", "docker.io"], cwd=place, stdout=subprocess.DEVNULL,
                      stderr=subprocess.DEVNULL, check=False).returncode != 0:
        return None
    for package in place.glob("docker.io_*.deb"):
        subprocess.run(["dpkg-deb", "-x", str(package), str(place)], check=True)
        package.unlink()
    return program if program.exists() else None


def write_buildah_settings(settings: Settings) -> Mapping[str, str]:
    """Writes buildah's configuration into our folder and returns the environment that points at it."""
    root.make(settings)
    home = settings.home / "buildah"
    (home / "etc").mkdir(parents=True, exist_ok=True)
    files = {
        "registries.conf": REGISTRIES_CONF.format(address=settings.registry),
        "policy.json": '{"default":[{"type":"insecureAcceptAnything"}]}',
        "storage.conf": f'[storage]\ndriver = "overlay"\nrunroot = "{home}/run"\ngraphroot = "{home}/graph"\n',
        "containers.conf": f"[containers]\ndefault_ulimits = [{_ulimits()}]\n",
    }
    for name, content in files.items():
        (home / "etc" / name).write_text(content)
    etc = home / "etc"
    return {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "HOME": str(home), "TMPDIR": str(home),
            "CONTAINERS_REGISTRIES_CONF": f"{etc}/registries.conf", "CONTAINERS_CONF": f"{etc}/containers.conf",
            "CONTAINERS_STORAGE_CONF": f"{etc}/storage.conf"}


def _ulimits() -> str:
    """The limits in force, quoted for containers.conf: buildah's defaults are higher than a restricted root may set."""
    limits = {"nofile": resource.RLIMIT_NOFILE, "nproc": resource.RLIMIT_NPROC}
    hard = {name: resource.getrlimit(which)[1] for name, which in limits.items()}
    return ", ".join(f'"{name}={value}:{value}"' for name, value in hard.items() if value != resource.RLIM_INFINITY)


def buildah(settings: Settings, *argv: str) -> list[str]:
    """A buildah command in the newer root; its paths must be below `settings.home`."""
    policy = settings.home / "buildah/etc/policy.json"
    options = ["--signature-policy", str(policy)] if argv and argv[0] in ("build", "bud", "pull", "push") else []
    return root.inside(settings, "/usr/bin/buildah", argv[0], *options, *argv[1:])
