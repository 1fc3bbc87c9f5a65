"""A server under measurement, and requests to it."""
from __future__ import annotations

import json
import os
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from peerlib.settings import Failure

ADDRESS, SAME_BYTES = "127.0.0.1:7078", "127.0.0.1:7079"
TOKEN = "bench-" + "0123456789abcdef" * 2
READY_SECONDS, STOP_SECONDS, BUILD_SECONDS, SETTLE_SECONDS = 60, 60, 120, 3
POLL_SECONDS = 0.002
# A server that uses less of one core has nothing to do.
IDLE_PART = 0.05


class Server:
    """`ashlar serve` on a data directory; ready when it is made."""

    def __init__(self, binary: Path, data: Path, words: Sequence[str]) -> None:
        self._log = tempfile.TemporaryFile()
        command = [str(binary), "serve", "--data-dir", str(data), "--listen", ADDRESS, *words]
        began = time.monotonic()
        self._child = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=self._log, stderr=self._log)
        wait_until_ready(ADDRESS, "/readyz", self._child, self._log)
        self.started = time.monotonic() - began

    def idle_mib(self) -> float:
        """Its resident memory some seconds after the start."""
        time.sleep(SETTLE_SECONDS)
        for line in Path(f"/proc/{self._child.pid}/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                return int(line.split()[1]) / 1024
        raise Failure("the server has ended")

    def settle(self) -> None:
        """Waits until it has nothing to do any more, such as what follows the end of a build."""
        deadline, before = time.monotonic() + READY_SECONDS, self._cpu_seconds()
        while time.monotonic() < deadline:
            time.sleep(SETTLE_SECONDS)
            now = self._cpu_seconds()
            if now - before < SETTLE_SECONDS * IDLE_PART:
                return
            before = now
        raise Failure(f"the server was still busy after {READY_SECONDS} s")

    def _cpu_seconds(self) -> float:
        fields = Path(f"/proc/{self._child.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def stop(self) -> None:
        """Ends it."""
        self._child.terminate()
        try:
            self._child.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._child.kill()
            self._child.wait()


def wait_until_ready(address: str, path: str, child: subprocess.Popen[bytes], log: Any = None) -> None:
    """Returns when a server answers; raises `Failure` with the end of its log when it does not."""
    deadline = time.monotonic() + READY_SECONDS
    while time.monotonic() < deadline and child.poll() is None:
        try:
            with urllib.request.urlopen(f"http://{address}{path}", timeout=5):
                return
        except OSError:
            time.sleep(POLL_SECONDS)
    child.kill()
    said = ""
    if log is not None:
        log.seek(0)
        said = log.read()[-2000:].decode(errors="replace")
    raise Failure(f"the server at {address} did not get ready\n{said}")


@contextmanager
def same_bytes(program: Path, body: bytes) -> Iterator[None]:
    """A server that answers with these bytes."""
    with tempfile.NamedTemporaryFile() as file:
        file.write(body)
        file.flush()
        child = subprocess.Popen([program, SAME_BYTES, file.name], stdin=subprocess.DEVNULL)
        try:
            wait_until_ready(SAME_BYTES, "/", child)
            yield
        finally:
            child.terminate()
            child.wait()


def get(path: str) -> Any:
    """The JSON at a path."""
    return ask(urllib.request.Request(f"http://{ADDRESS}{path}"))


def submit(dockerfile: str) -> str:
    """Submits a build and returns its id."""
    body = json.dumps({"scope": "bench", "name": "noop", "dockerfile": dockerfile}).encode()
    request = urllib.request.Request(f"http://{ADDRESS}/api/v1/builds", body, {"Content-Type": "application/json"})
    return ask(request)["id"]


def wait_for(build: str, pause: float = POLL_SECONDS) -> Any:
    """The record of a build once it has ended well; looks again after each pause."""
    deadline = time.monotonic() + BUILD_SECONDS
    while time.monotonic() < deadline:
        record = get(f"/api/v1/builds/{build}")
        if record["state"] in ("succeeded", "failed", "cancelled", "skipped"):
            if record["state"] != "succeeded":
                raise Failure(f"build {build} {record['state']}: {record.get('failure')}")
            return record
        time.sleep(pause)
    raise Failure(f"build {build} did not end within {BUILD_SECONDS} s")


def ask(request: urllib.request.Request) -> Any:
    """Sends a request with the token."""
    request.add_header("Authorization", f"Bearer {TOKEN}")
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            return json.load(answer)
    except urllib.error.HTTPError as error:
        raise Failure(f"{request.full_url}: {error.code} {error.read()[:500].decode(errors='replace')}") from error
