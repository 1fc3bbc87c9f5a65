"""Where the peers live, from the environment with defaults."""
from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path


class Failure(Exception):
    """Something that the caller must put right; its text says what and how."""


@dataclass(frozen=True)
class Settings:
    """Places and names; see `from_environment` for the variables."""

    home: Path
    root: Path
    registry: str
    suite: str
    tls: str | None = None

    @staticmethod
    def from_environment() -> Settings:
        """Reads ASHLAR_PEERS_DIR, ASHLAR_PEERS_ROOT, ASHLAR_PEERS_REGISTRY, ASHLAR_PEERS_SUITE and ASHLAR_PEERS_TLS.

        The last one, HOST:PORT, makes one dockerd listen there too, for holders of a certificate: the folder `tls` of
        ours has its `ca.pem`, `server-cert.pem` and `server-key.pem`.
        """
        home = Path(os.environ.get("ASHLAR_PEERS_DIR", "/var/tmp/ashlar-peers"))
        return Settings(
            home=home,
            root=Path(os.environ.get("ASHLAR_PEERS_ROOT", home / "root")),
            registry=os.environ.get("ASHLAR_PEERS_REGISTRY", "127.0.0.1:5077"),
            suite=os.environ.get("ASHLAR_PEERS_SUITE", "sid"),
            tls=os.environ.get("ASHLAR_PEERS_TLS"),
        )

    def socket(self, daemon: str) -> Path:
        """The unix socket of a dockerd ("store" or "classic")."""
        return self.home / daemon / "docker.sock"

    def log(self, name: str) -> Path:
        """The log file of a started process."""
        return self.home / "log" / name
