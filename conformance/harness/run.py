"""Runs many cases, some at a time, and reports in the order of their names."""
from __future__ import annotations

import json
import subprocess
import tarfile
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from . import compare
from .builders import WrongOutcome
from .case import BadCase, Case
from .oci import BadImage

Build = Callable[[Case], dict]
CASE_FAILURES = (WrongOutcome, BadImage, BadCase, OSError, KeyError, TypeError, ValueError, tarfile.TarError,
                 subprocess.SubprocessError)


@dataclass
class Verdict:
    """What became of one case."""

    case: Case
    document: dict | None = None
    problem: str = ""
    differences: list[compare.Difference] = field(default_factory=list)
    accepted: list[compare.Known] = field(default_factory=list)

    @property
    def passed(self) -> bool:
        """True when the build came out as expected, accepted differences aside."""
        return not self.problem and not self.differences


def build_all(cases: Iterable[Case], build: Build, jobs: int) -> Iterator[Verdict]:
    """Builds every case; a failure of one is its verdict's problem and stops nothing else."""

    def one(case: Case) -> Verdict:
        try:
            return Verdict(case, document=build(case))
        except CASE_FAILURES as error:
            return Verdict(case, problem=f"{type(error).__name__}: {error}")

    with ThreadPoolExecutor(jobs) as pool:
        yield from pool.map(one, cases)


def judge(verdict: Verdict, known: list[compare.Known]) -> Verdict:
    """Compares a built case with its committed expectation."""
    if verdict.problem or verdict.document is None:
        return verdict
    place = verdict.case.expectation
    if not place.exists():
        verdict.problem = f"{place.name} is missing: run conformance/expect {verdict.case.name}"
        return verdict
    for difference in compare.differences(json.loads(place.read_text()), verdict.document):
        reasons = [entry for entry in known if entry.covers(verdict.case.name, difference)]
        if reasons:
            verdict.accepted.append(reasons[0])
        else:
            verdict.differences.append(difference)
    return verdict


def describe(verdict: Verdict) -> str:
    """The report of one case."""
    name = verdict.case.name
    if verdict.problem:
        return f"FAIL {name}\n    {verdict.problem}"
    if verdict.differences:
        return "\n".join([f"FAIL {name}", *map(str, verdict.differences)])
    note = f" ({len(verdict.accepted)} accepted differences)" if verdict.accepted else ""
    return f"ok   {name}{note}"
