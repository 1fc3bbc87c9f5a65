"""The two builders, each as a function from a case to a comparable document."""
from __future__ import annotations

import os
import re
import subprocess
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from peerlib import builders as peers
from peerlib import root
from peerlib.settings import Settings

from . import context, normal, oci
from .case import Case

BUILD_SECONDS = 120
QUOTED_SOURCE = re.compile(r"^ *\d+ \|.*$", re.MULTILINE)  # lines of the Dockerfile that an error shows


class WrongOutcome(Exception):
    """A build that failed or succeeded when it must not, or failed with the wrong words."""


@dataclass(frozen=True)
class Workspace:
    """A temporary folder for one build; `{registry}` in a build argument stands for the registry's address."""

    folder: Path
    registry: str

    @property
    def context(self) -> Path:
        """The build context."""
        return self.folder / "context"

    @property
    def archive(self) -> Path:
        """Where the image goes."""
        return self.folder / "image.tar"

    def prepare(self, case: Case, drop_syntax: bool) -> None:
        """Writes the context and the secrets."""
        self.context.mkdir()
        context.write(case, self.context, drop_syntax)
        for name, value in case.secrets.items():
            (self.folder / f"secret-{name}").write_text(value)

    def common_options(self, case: Case) -> list[str]:
        """Options that both builders take alike."""
        words = ["-f", str(self.context / case.file)]
        for name, value in case.build_args.items():
            words += ["--build-arg", f"{name}={value.replace(normal.REGISTRY_MARK, self.registry)}"]
        for name, value in case.labels.items():
            words += ["--label", f"{name}={value}"]
        for name in case.secrets:
            words += ["--secret", f"id={name},src={self.folder / f'secret-{name}'}"]
        words += ["--target", case.target] if case.target else []
        words += ["--platform", case.platform] if case.platform else []
        return [*words, "--progress", "plain", "--output", f"type=oci,dest={self.archive}"]


def buildkit(case: Case, settings: Settings) -> dict:
    """Builds a case with the BuildKit of the `store` daemon, without its cache."""
    with tempfile.TemporaryDirectory(prefix="conformance-") as folder:
        place = Workspace(Path(folder), settings.registry)
        place.prepare(case, case.buildkit == "without-syntax")
        command = root.buildx(settings, "build", "--no-cache", "--provenance=false", *place.common_options(case),
                              str(place.context))
        # A client identity of its own: the daemon takes a file of a known client with the same name, size and time for the
        # one that it got earlier, in another case.
        identity = {"BUILDX_CONFIG": str(place.folder / "buildx")}
        document = _outcome(case, place, command, peers.environment(settings, "store") | identity)
    return _with_line_of_case(case, document)


def _with_line_of_case(case: Case, document: dict) -> dict:
    """BuildKit leaves some errors without a line; there the case's own line is what is expected."""
    if case.error and document.get("error") == {"line": None}:
        return {"error": {"line": case.error.line}}
    return document


@dataclass(frozen=True)
class Ashlar:
    """The binary under test, and where it keeps its data."""

    binary: Path
    data: Path
    registry: str
    options: tuple[str, ...] = ()

    def build(self, case: Case) -> dict:
        """Builds a case with Ashlar; the data directory is shared, so that steps also come from its cache."""
        with tempfile.TemporaryDirectory(prefix="conformance-") as folder:
            place = Workspace(Path(folder), self.registry)
            place.prepare(case, drop_syntax=False)
            command = [str(self.binary), "build", str(place.context), *place.common_options(case), "--data-dir",
                       str(self.data), "--registry-mirror", f"docker.io=http://{self.registry}", *self.options]
            document = _outcome(case, place, command, os.environ)
        return _with_line_of_case(case, document) if "buildkit" in self.options else document


def _outcome(case: Case, place: Workspace, command: list[str], environment: Mapping[str, str]) -> dict:
    """Runs a build and normalises what came of it; raises `WrongOutcome` when success or failure is not as the case says."""
    try:
        ended = subprocess.run(command, env=dict(environment), stdin=subprocess.DEVNULL, capture_output=True,
                               text=True, errors="replace", timeout=BUILD_SECONDS, check=False)
    except subprocess.TimeoutExpired as error:
        raise WrongOutcome(f"no end after {BUILD_SECONDS} s") from error
    output = ended.stdout + ended.stderr
    if ended.returncode != 0 and case.error is None:
        raise WrongOutcome(f"the build failed (exit code {ended.returncode}):\n{_tail(output)}")
    if case.error is None:
        return normal.without_address(normal.document(oci.read(place.archive)), place.registry)
    if ended.returncode == 0:
        raise WrongOutcome(f"the build succeeded; it must fail with {case.error.says!r}")
    if not re.search(case.error.says, QUOTED_SOURCE.sub("", output), re.IGNORECASE):
        raise WrongOutcome(f"no message matches {case.error.says!r}:\n{_tail(output)}")
    return normal.failure(output, Path(case.file).name)


def _tail(output: str) -> str:
    """The end of a build's output, indented."""
    return "\n".join("      " + line for line in output.strip().splitlines()[-15:])
