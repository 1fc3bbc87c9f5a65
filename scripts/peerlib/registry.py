"""The registry that holds the base images: Debian's docker-registry over plain http on loopback."""
from __future__ import annotations

import http.client
import sys
from pathlib import Path

from . import processes
from .packages import need
from .settings import Failure, Settings

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
import base_images  # noqa: E402 (a script of the folder above)

CONFIG = """\
version: 0.1
log: {{level: warn}}
storage: {{filesystem: {{rootdirectory: {data}}}, delete: {{enabled: true}}}}
http: {{addr: {address}}}
"""


def answers(address: str) -> bool:
    """True when a registry answers on this address."""
    try:
        connection = http.client.HTTPConnection(address, timeout=2)
        connection.request("GET", "/v2/")
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False


def start(settings: Settings) -> None:
    """Starts the registry and pushes the base images; cheap when it runs already."""
    if processes.pid_of(settings, "registry") is not None:
        return
    if answers(settings.registry):
        raise Failure(f"something else answers on {settings.registry}: set ASHLAR_PEERS_REGISTRY to a free address")
    need("docker-registry", "docker-registry")
    need("busybox", "busybox-static")
    need("zstd", "zstd")
    settings.home.mkdir(parents=True, exist_ok=True)
    config = settings.home / "registry.yml"
    config.write_text(CONFIG.format(data=settings.home / "registry", address=settings.registry))
    processes.start(settings, "registry", ["docker-registry", "serve", str(config)], lambda: answers(settings.registry))
    try:
        base_images.push_all(settings.registry)
    except base_images.Failure as failure:
        processes.stop(settings, "registry")
        raise Failure(str(failure)) from failure
