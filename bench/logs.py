"""A step that writes as much log as it can, and those who follow it."""
from __future__ import annotations

import socket
import threading
import time
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from peerlib.settings import Failure
from server import ADDRESS, TOKEN, get, submit, wait_for

MIB = 1 << 20
# Far more than what is compressed at once: no row of the journal holds a line twice because of `cat`.
BLOCK_BYTES = 8 * MIB
WORDS = ("Compiling warning: unused variable src/main.rs note: Downloading crate error[E0308] mismatched types "
         "expected")
# Lines of 90 to 110 bytes, made by the step before: the measured one only hands on pages of a file.
BLOCK = f"""awk 'BEGIN {{ srand(7); words = split("{WORDS}", word, " "); while (bytes < {BLOCK_BYTES}) {{ \
line = ""; while (length(line) < 90) line = line word[int(rand() * words) + 1] " " int(rand() * 1000) " "; \
print line; bytes += length(line) + 1 }} }}' | head -c {BLOCK_BYTES - 1} >/block && echo >>/block"""
STEP, POLL_SECONDS = 3, 0.2
# Entries at both ends of the journal, among which those of the step are.
END_ENTRIES = 20
RECEIVE_BYTES, SAMPLE_SECONDS, FOLLOW_SECONDS = MIB, 0.02, 600


@dataclass(frozen=True)
class Written:
    """How a step's log was taken in, and what its followers had of it."""

    mib: float
    seconds: float
    # Of each follower: which part of all that it got it had when the step ended.
    parts: Sequence[float]
    # How much later the last follower had everything.
    lag_seconds: float

    @property
    def rate(self) -> float:
        """MiB/s taken in from the step."""
        return self.mib / self.seconds


class Follower(threading.Thread):
    """One connection that reads the log of a build from its begin to its end as it comes."""

    def __init__(self, build: str, form: str) -> None:
        super().__init__(daemon=True)
        self._path = f"/api/v1/builds/{build}/logs?follow=true&format={form}"
        self._failure: BaseException | None = None
        self._times: list[float] = []
        self._counts: list[int] = []
        self.start()

    def run(self) -> None:
        """Reads; what goes wrong is told by `end`."""
        try:
            self._read()
        except (OSError, Failure) as failure:
            self._failure = failure

    def _read(self) -> None:
        host, port = ADDRESS.split(":")
        buffer = bytearray(RECEIVE_BYTES)
        with socket.create_connection((host, int(port)), FOLLOW_SECONDS) as connection:
            # In HTTP/1.0 the body is nothing but the log: its bytes are counted without being looked at.
            connection.sendall(f"GET {self._path} HTTP/1.0\r\nAuthorization: Bearer {TOKEN}\r\n\r\n".encode())
            head = b""
            while b"\r\n\r\n" not in head:
                came = connection.recv(RECEIVE_BYTES)
                if not came:
                    raise Failure(f"{self._path}: the answer ended within its head")
                head += came
            head, _, body = head.partition(b"\r\n\r\n")
            if b" 200 " not in head.split(b"\r\n")[0]:
                raise Failure(f"{self._path}: {(head + body)[:500].decode(errors='replace')}")
            count = len(body)
            self._sample(count)
            while length := connection.recv_into(buffer):
                count += length
                if time.time() - self._times[-1] >= SAMPLE_SECONDS:
                    self._sample(count)
            self._sample(count)

    def _sample(self, count: int) -> None:
        self._times.append(time.time())
        self._counts.append(count)

    def end(self) -> tuple[int, float]:
        """Waits for the end; returns how many bytes there were and when the last one came."""
        self.join(FOLLOW_SECONDS)
        if self._failure is not None:
            raise Failure(f"a follower broke off: {self._failure}") from self._failure
        if self.is_alive():
            raise Failure(f"a follower was not done within {FOLLOW_SECONDS} s")
        return self._counts[-1], self._times[-1]

    def had(self, at: float) -> int:
        """Bytes that had come by a time."""
        place = bisect_right(self._times, at)
        return self._counts[place - 1] if place else 0


def write_log(mib: int, followers: int = 0, form: str = "raw") -> Written:
    """Runs a build whose one step writes that much log while some follow it; `Failure` when one of them missed any."""
    blocks, unlike = mib * MIB // BLOCK_BYTES, time.time_ns()
    loop = f": {unlike}; i=0; while [ $i -lt {blocks} ]; do cat /block; i=$((i + 1)); done"
    build = submit(f"FROM busybox\nRUN {BLOCK}\nRUN {loop}\n")
    readers = [Follower(build, form) for _ in range(followers)]
    last = wait_for(build, POLL_SECONDS)["next"]
    began = event_time(build, "step_started", 0)
    ended = event_time(build, "step_ended", last - END_ENTRIES)
    got = [reader.end() for reader in readers]
    for count, _ in got:
        if count != got[0][0] or (form == "raw" and count != mib * MIB):
            raise Failure(f"of {mib * MIB} bytes of log followers got {[count for count, _ in got]}")
    parts = [reader.had(ended) / count for reader, (count, _) in zip(readers, got, strict=True)]
    lag = max((at for _, at in got), default=ended) - ended
    return Written(mib, ended - began, parts, lag)


def event_time(build: str, event: str, first: int) -> float:
    """When something happened to the measured step, in seconds since 1970."""
    for entry in get(f"/api/v1/builds/{build}/events?from={first}&limit={END_ENTRIES}")["entries"]:
        if entry["event"] == event and entry["step"] == STEP:
            return datetime.fromisoformat(entry["time"]).timestamp()
    raise Failure(f"build {build} says nowhere of its step {STEP} that it is {event}")
