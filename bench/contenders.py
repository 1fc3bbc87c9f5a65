"""The builders side by side: each turns a context into commands."""
from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import measure
from peerlib import builders as peers
from peerlib import processes, root
from peerlib.settings import Settings

REPOSITORY = "bench/result"
ARCHIVES = {"archive": "docker", "oci": "oci"}
"""Outputs that are files, and their form: what `docker load` takes (layers as they are), or OCI (layers compressed)."""


@dataclass(frozen=True)
class Ashlar:
    """The release binary, as a one-shot process with a data directory of its own."""

    binary: Path
    work: Path
    settings: Settings
    name: str = "ashlar"
    is_buildkit: bool = False

    def can(self, output: str) -> bool:
        """It writes them all."""
        return True

    def build(self, context: Path, output: str) -> measure.Sample:
        """Builds once."""
        words = [str(self.binary), "build", str(context), "--data-dir", str(self.work / "data"), "--progress", "quiet",
                 "--registry-mirror", f"docker.io=http://{self.settings.registry}"]
        if output in ARCHIVES:
            words += ["--output", f"type={ARCHIVES[output]},dest={self.work / 'ashlar.tar'}"]
        elif output == "push":
            words += ["--output", f"type=registry,name={self.settings.registry}/{REPOSITORY}:ashlar,insecure=true"]
        return measure.run([words], os.environ)

    def clean(self) -> None:
        """Nothing: the data directory goes with the work folder."""


@dataclass(frozen=True)
class BuildKit:
    """The BuildKit inside a dockerd, through the quickest client for each output."""

    daemon: str
    work: Path
    settings: Settings
    cli: Path | None
    is_buildkit: bool = True

    @property
    def name(self) -> str:
        """`BuildKit (classic)` or `BuildKit (store)`."""
        return f"BuildKit ({self.daemon})"

    def can(self, output: str) -> bool:
        """The classic store writes no OCI archives."""
        return output != "oci" or self.daemon == "store"

    def build(self, context: Path, output: str) -> measure.Sample:
        """Builds once; memory is the client's and the daemon's, containerd included."""
        pid = processes.pid_of(self.settings, f"dockerd-{self.daemon}")
        return measure.run(self._commands(context, output), self._environment(), measure.descendants(pid) if pid else [])

    def clean(self) -> None:
        """Frees the daemon's disk after the heavy rows."""
        measure.run([self._docker("builder", "prune", "-a", "-f"), self._docker("image", "prune", "-a", "-f")],
                    self._environment())

    def _environment(self) -> Mapping[str, str]:
        return peers.environment(self.settings, self.daemon)

    def _docker(self, *words: str) -> list[str]:
        """The old docker client where there is one (20.10 starts twice as fast as buildx), else that of the new root."""
        return [str(self.cli), *words] if self.cli else root.on_host(self.settings, "usr/bin/docker", *words)

    def _commands(self, context: Path, output: str) -> list[list[str]]:
        tag = f"{self.settings.registry}/{REPOSITORY}:{self.daemon}"
        archive = str(self.work / f"{self.daemon}.tar")
        if output == "store":
            if self.cli:
                return [self._docker("build", "-q", str(context))]
            return [root.buildx(self.settings, "build", "-q", "--provenance=false", str(context))]
        if self.daemon == "store":  # only the containerd store exports by itself
            kind = f"type=image,name={tag},push=true,registry.insecure=true"
            if output in ARCHIVES:
                kind = f"type={ARCHIVES[output]},dest={archive}"
            return [root.buildx(self.settings, "build", "-q", "--provenance=false", "--output", kind, str(context))]
        after = ["save", "-o", archive, tag] if output == "archive" else ["push", tag]
        return [self._docker("build", "-q", "-t", tag, str(context)), self._docker(*after)]


@dataclass(frozen=True)
class Buildah:
    """buildah of the newer root, with its layer cache."""

    work: Path
    settings: Settings
    name: str = "buildah"
    is_buildkit: bool = False

    def can(self, output: str) -> bool:
        """It writes them all."""
        return True

    def build(self, context: Path, output: str) -> measure.Sample:
        """Builds once."""
        return measure.run(self._commands(context, output), peers.write_buildah_settings(self.settings))

    def clean(self) -> None:
        """Removes its images."""
        measure.run([peers.buildah(self.settings, "rmi", "-a", "-f")], peers.write_buildah_settings(self.settings))

    def _commands(self, context: Path, output: str) -> list[list[str]]:
        tag = "localhost/bench:result"
        build = peers.buildah(self.settings, "build", "-q", "--layers", "--isolation", "chroot", "-t", tag, str(context))
        archive = self.work / "buildah.tar"
        places = {"archive": f"docker-archive:{archive}", "oci": f"oci-archive:{archive}", "push": f"docker://{self.settings.registry}/{REPOSITORY}:buildah"}
        if output == "store":
            return [build]
        archive.unlink(missing_ok=True)
        return [build, peers.buildah(self.settings, "push", "-q", "--tls-verify=false", tag, places[output])]


Contender = Ashlar | BuildKit | Buildah
