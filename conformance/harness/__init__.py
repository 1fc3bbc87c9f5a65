"""Builds Dockerfile cases with BuildKit and with Ashlar and compares what they make.

Reading order: `case` (what a case is), `context` (its files on disk), `oci` (an image archive as config and tree),
`normal` (what is compared), `compare` (how), `builders` (who builds), `run` (all cases, in parallel).
"""
import sys
from pathlib import Path

HOME = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(HOME.parent / "scripts"))
