"""Drives nullspace-sdk 1.0.3 and its CLI against a server: NULLSPACE_API_URL, NULLSPACE_API_KEY, STRANGER_KEY."""

import json
import os
import pathlib
import subprocess
import sys
import time

from nullspace import Template
from nullspace.errors import (
    AuthError, BuildError, ConflictError, FileUploadError, MachineError, NotFoundError,
)

BIN = pathlib.Path(sys.executable).parent
CASES = []


def case(f):
    CASES.append(f)
    return f


def raises(kind, f, code=None):
    try:
        f()
    except kind as e:
        assert code is None or e.code == code, (e.code, str(e))
        return e
    raise AssertionError(f"no {kind.__name__}")


def spec(*commands):
    t = Template().from_image("busybox:latest")
    for c in commands:
        t = t.run_cmd(c)
    return t


def newest(name):
    return Template.list_builds(name, limit=1).builds[0]


@case
def declarative_builds_stream_and_count():
    seen = []
    b = Template.build(spec("echo one > /one", "echo two > /two"), name="counted", on_log_entry=seen.append)
    assert b.status == "ready" and b.canonical_ref == "acme/counted", b
    assert seen[0].kind == "start" and seen[-1].kind == "end"
    assert [e.offset for e in seen] == list(range(len(seen)))
    c = newest("counted").cache_summary
    assert (c.final_artifact_misses, c.final_artifact_stores, c.layer_misses, c.layer_stores) == (1, 1, 2, 2), c
    Template.build(spec("echo one > /one", "echo two > /two"), name="counted")
    c = newest("counted").cache_summary
    assert (c.final_artifact_hits, c.final_artifact_misses, c.layer_misses, c.layer_stores) == (1, 0, 0, 0), c
    Template.build(spec("echo one > /one", "echo three > /two"), name="counted")
    c = newest("counted").cache_summary
    assert (c.layer_hits, c.layer_misses, c.layer_stores, c.final_artifact_misses) == (1, 1, 1, 1), c
    Template.build(spec("echo one > /one", "echo three > /two"), name="counted", skip_cache=True)
    c = newest("counted").cache_summary
    assert (c.final_artifact_bypasses, c.layer_bypasses, c.layer_hits, c.layer_misses) == (1, 2, 0, 0), c


def main():
    for f in CASES:
        begun = time.monotonic()
        f()
        print(f"{f.__name__}: {time.monotonic() - begun:.2f} s", flush=True)
    print("all well")


main()
