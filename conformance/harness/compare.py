"""Compares two documents of `normal` and knows the accepted differences."""
from __future__ import annotations

import fnmatch
import json
import tomllib
from dataclasses import dataclass

from . import HOME

KNOWN = HOME / "known-differences.toml"
ABSENT = "(absent)"


@dataclass(frozen=True)
class Difference:
    """One place where the results differ, as `tree./etc/passwd.mode`."""

    key: str
    expected: str
    actual: str

    def __str__(self) -> str:
        return f"    {self.key}\n      expected: {self.expected}\n      actual:   {self.actual}"


@dataclass(frozen=True)
class Known:
    """An accepted difference: in which case, at which keys (shell patterns), why it is right, and with which backend."""

    case: str
    keys: tuple[str, ...]
    reason: str
    backend: str = "native"

    def covers(self, case: str, difference: Difference) -> bool:
        """True when this entry accepts the difference."""
        return case == self.case and any(fnmatch.fnmatchcase(difference.key, key) for key in self.keys)


def load_known(backend: str = "native") -> list[Known]:
    """Reads `known-differences.toml`: what is accepted of builds by `backend`."""
    entries = tomllib.loads(KNOWN.read_text()).get("difference", [])
    known = [Known(**(e | {"keys": tuple(e["keys"])})) for e in entries]
    return [entry for entry in known if entry.backend == backend]


def leaves(value: object, key: str = "") -> dict[str, str]:
    """Every leaf of a document by its key. A tree's entry is cut into its facts, a list into its items."""
    if isinstance(value, dict) and value:
        items = value.items()
    elif isinstance(value, list) and value:
        items = ((str(number), each) for number, each in enumerate(value))
    else:
        return {key: json.dumps(value, ensure_ascii=False)}
    found: dict[str, str] = {}
    for name, each in items:
        found |= leaves(each, f"{key}.{name}" if key else name)
    return found


def differences(expected: dict, actual: dict) -> list[Difference]:
    """All differences, sorted by key; a path that one side lacks is one difference, not one for each of its facts."""
    found = _tree_gaps(expected, actual)
    common = set(expected.get("tree", {})) & set(actual.get("tree", {}))
    left, right = leaves(_only(expected, common)), leaves(_only(actual, common))
    for key in sorted(left.keys() | right.keys()):
        if left.get(key) != right.get(key):
            found.append(Difference(key, left.get(key, ABSENT), right.get(key, ABSENT)))
    return found


def _only(document: dict, paths: set[str]) -> dict:
    """The document with its tree cut to these paths."""
    if "tree" not in document:
        return document
    return document | {"tree": {path: entry for path, entry in document["tree"].items() if path in paths}}


def _tree_gaps(expected: dict, actual: dict) -> list[Difference]:
    """Paths that only one of the trees has."""
    left, right = expected.get("tree", {}), actual.get("tree", {})
    if "tree" not in expected or "tree" not in actual:
        return []
    return [Difference(f"tree.{path}", *(json.dumps(t[path]) if path in t else ABSENT for t in (left, right)))
            for path in sorted(left.keys() ^ right.keys())]
