"""Load by `wrk`."""
from __future__ import annotations

import re
import shutil
import subprocess
import tempfile
from dataclasses import dataclass

from peerlib.settings import Failure
from server import TOKEN

UNITS_MS = {"us": 0.001, "ms": 1.0, "s": 1000.0}


@dataclass(frozen=True)
class Load:
    """How many connections, for how long."""

    connections: int
    seconds: int


@dataclass(frozen=True)
class Answered:
    """What came back."""

    requests: int
    per_second: float
    p99_ms: float


def anywhere(first: int, last: int) -> str:
    """The script of a load that asks for the pages after positions that chance chooses, both included."""
    return ("request = function()\n"
            f"  return wrk.format(nil, wrk.path .. string.format(\"&cursor=%x\", math.random({first}, {last})))\n"
            "end\n")


def wrk(address: str, path: str, load: Load, post: str | None = None, script: str = "") -> Answered:
    """Asks for a path over and over; raises `Failure` when an answer is no success."""
    if shutil.which("wrk") is None:
        raise Failure("this needs wrk: install the package wrk")
    if post is not None:
        script += f'wrk.method = "POST"\nwrk.headers["Content-Type"] = "application/json"\nwrk.body = {quoted(post)}\n'
    with tempfile.NamedTemporaryFile("w", suffix=".lua") as file:
        file.write(script)
        file.flush()
        command = ["wrk", "-t1", f"-c{load.connections}", f"-d{load.seconds}s", "--latency", "-s", file.name,
                   "-H", f"Authorization: Bearer {TOKEN}", f"http://{address}{path}"]
        said = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    if "Non-2xx" in said or "Socket errors" in said:
        raise Failure(f"{path}: {said}")
    requests = re.search(r"(\d+) requests in", said)
    rate = re.search(r"Requests/sec:\s+([\d.]+)", said)
    p99 = re.search(r"99%\s+([\d.]+)(us|ms|s)\b", said)
    if not (requests and rate and p99):
        raise Failure(f"wrk said what nobody understands: {said}")
    return Answered(int(requests[1]), float(rate[1]), float(p99[1]) * UNITS_MS[p99[2]])


def quoted(text: str) -> str:
    """A string of Lua: the escapes of JSON that occur here mean the same there."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'
