"""The table that the benchmark prints."""
from __future__ import annotations

from dataclasses import dataclass, field
from statistics import median

from contenders import Contender
from measure import Sample
from rows import Phase

KIB_PER_MIB = 1024


@dataclass
class Result:
    """The samples of one row, by the builder's name."""

    phase: Phase
    samples: dict[str, list[Sample]] = field(default_factory=dict)

    def seconds(self, name: str) -> float | None:
        """The median time of a builder."""
        taken = self.samples.get(name)
        return median(s.seconds for s in taken) if taken else None

    def peak_mib(self, name: str) -> float | None:
        """The highest peak of a builder."""
        taken = self.samples.get(name)
        return max(s.peak_kib for s in taken) / KIB_PER_MIB if taken else None


def _cell(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)


def fastest_buildkit(result: Result, contenders: list[Contender]) -> float | None:
    """The median of the faster BuildKit."""
    times = [t for c in contenders if c.is_buildkit and (t := result.seconds(c.name)) is not None]
    return min(times, default=None)


def markdown(results: list[Result], contenders: list[Contender]) -> str:
    """Seconds (medians), the ratio to the faster BuildKit beside what it is to reach, and peak memory in MiB."""
    names = [c.name for c in contenders]
    heads = ["build", *(f"{n}, s" for n in names), "x BuildKit", "to reach", *(f"{n}, MiB" for n in names)]
    lines = ["| " + " | ".join(heads) + " |", "|---" * len(heads) + "|"]
    for result in results:
        best, own = fastest_buildkit(result, contenders), result.seconds("ashlar")
        ratio = own / best if own is not None and best else None
        verdict = "" if ratio is None else " ok" if ratio <= result.phase.reach else " MISSED"
        cells = [result.phase.title, *(_cell(result.seconds(n), ".3f") for n in names), _cell(ratio, ".2f") + verdict,
                 f"{result.phase.reach}", *(_cell(result.peak_mib(n), ".0f") for n in names)]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)
