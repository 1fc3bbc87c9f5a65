"""Builds Dockerfile cases with BuildKit and with Ashlar and compares what they make.

Reading order: `case` (what a case is), `context` (its files on disk), `oci` (an image archive as config and tree),
`normal` (what is compared), `compare` (how), `builders` (who builds), `run` (all cases, in parallel).
"""
import os
import sys
from pathlib import Path

HOME = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(HOME.parent / "scripts"))
from peerlib.settings import Failure  # noqa: E402 (a script folder beside this one)


def binary() -> Path:
    """The binary under test."""
    named = os.environ.get("ASHLAR")
    target = Path(os.environ.get("CARGO_TARGET_DIR", HOME.parent / "target"))
    places = [Path(named)] if named else [target / "release/ashlar", target / "debug/ashlar"]
    for place in places:
        if os.access(place, os.X_OK):
            return place.resolve()
    raise Failure(f"no ashlar binary at {' or '.join(map(str, places))}: build it, or set ASHLAR")
