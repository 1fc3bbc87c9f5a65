"""A conformance case: a folder with a Dockerfile and, if needed, a `case.toml` (its fields are those of `Case`)."""
from __future__ import annotations

import tomllib
from dataclasses import dataclass, field
from pathlib import Path

from . import HOME

CASES = HOME / "cases"
EXPECTED = HOME / "expected"
BUILDKIT_ROLES = ("builds", "refuses", "without-syntax")


class BadCase(Exception):
    """A case that is written wrongly; the text says how to put it right."""


@dataclass(frozen=True)
class ExpectedError:
    """A build that must fail: a regular expression that the message must match, and the Dockerfile's line.

    A line is needed only where BuildKit names none though there is one; where it names one, that must be the same.
    """

    says: str
    line: int | None = None


@dataclass(frozen=True)
class Case:
    """One case.

    `file` is the Dockerfile's name within the context. `buildkit` says what the reference builder makes of it: `builds`
    (the expectation comes from it, also for an expected error), `refuses` (newer syntax than it knows: the expectation is
    written by hand), `without-syntax` (it builds once the `# syntax` line, which it would have to pull, is taken out).
    """

    name: str
    about: str = ""
    file: str = "Dockerfile"
    target: str = ""
    platform: str = ""
    buildkit: str = "builds"
    build_args: dict[str, str] = field(default_factory=dict)
    labels: dict[str, str] = field(default_factory=dict)
    secrets: dict[str, str] = field(default_factory=dict)
    files: dict[str, str | dict] = field(default_factory=dict)
    error: ExpectedError | None = None

    @property
    def dockerfile(self) -> bytes:
        """The Dockerfile's bytes."""
        return (CASES / self.name / "Dockerfile").read_bytes()

    @property
    def expectation(self) -> Path:
        """Where the expected result is kept."""
        return EXPECTED / f"{self.name}.json"


def load(name: str) -> Case:
    """Reads one case; raises `BadCase` on an unknown key or a missing Dockerfile."""
    folder = CASES / name
    if not (folder / "Dockerfile").is_file():
        raise BadCase(f"{folder} has no Dockerfile")
    options = folder / "case.toml"
    try:
        fields = tomllib.loads(options.read_text()) if options.exists() else {}
        if "error" in fields:
            fields["error"] = ExpectedError(**fields["error"])
        case = Case(name=name, **fields)
    except (tomllib.TOMLDecodeError, TypeError) as error:
        raise BadCase(f"{options}: {error}") from error
    if case.buildkit not in BUILDKIT_ROLES:
        raise BadCase(f"{options}: buildkit must be one of {', '.join(BUILDKIT_ROLES)}")
    return case


def names() -> list[str]:
    """Every case's name, sorted."""
    return sorted(p.name for p in CASES.iterdir() if p.is_dir())


def select(wanted: list[str]) -> list[Case]:
    """The named cases, or all; raises `BadCase` for a name that there is not."""
    known = names()
    unknown = [name for name in wanted if name not in known]
    if unknown:
        raise BadCase(f"no such case: {', '.join(unknown)}")
    return [load(name) for name in (wanted or known)]
