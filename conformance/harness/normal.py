"""What is compared: an image as a small JSON document, without what two builders may rightly do differently.

Left out: build times, digests of the build's own layers, BuildKit's ` # buildkit` marks in the history, and everything that
the base image already had.
"""
from __future__ import annotations

import functools
import hashlib
import json
import re
from dataclasses import dataclass

import base_images

from . import oci

TEXT_MAX = 240  # bytes of a text file that are shown as they are, for readable differences
LINKS_MAX = 8  # names of a hard-linked file that are listed; of more, only how many
KEPT_TIMES_BEFORE = 1_720_000_000  # files with an older time carry that of the context or the base, not of the build
BUILDKIT_MARK = " # buildkit"
REGISTRY_MARK = "{registry}"


@dataclass(frozen=True)
class Base:
    """A base image: its name, diff ids, history length and tree."""

    name: str
    diff_ids: tuple[str, ...]
    tree: oci.Tree


@functools.cache
def bases() -> tuple[Base, ...]:
    """All base images, those with most layers first, and last the empty one."""
    found = {(): Base("scratch", (), {})}
    for named in base_images.all_images():
        for image in (i for tag in named.tags.values() for i in (tag if isinstance(tag, list) else [tag])):
            tars = [base_images.tar_bytes(layer) for layer in image.layers]
            diff_ids = tuple(base_images.digest(tar) for tar in tars)
            if diff_ids not in found:
                found[diff_ids] = Base(named.repository, diff_ids, oci.flatten(tars))
    return tuple(sorted(found.values(), key=lambda base: -len(base.diff_ids)))


def document(image: oci.Image) -> dict:
    """The comparable form of an image."""
    diff_ids = tuple(image.config["rootfs"]["diff_ids"] or [])
    base = next(b for b in bases() if diff_ids[:len(b.diff_ids)] == b.diff_ids)
    tree = oci.flatten(image.layers)
    result = {"platform": _platform(image.config), "base": base.name, "config": _config(image.config.get("config") or {}),
              "history": _history(image.config, len(base.diff_ids)), "tree": _changed(tree, base.tree)}
    removed = sorted(path for path in base.tree if path not in tree)
    return result | ({"removed": removed} if removed else {})


def without_address(document: dict, registry: str) -> dict:
    """A document in which `{registry}` stands for the registry's address, as in build arguments: ports differ."""
    return json.loads(json.dumps(document).replace(registry, REGISTRY_MARK))


def _platform(config: dict) -> str:
    """`os/architecture[/variant]`."""
    return "/".join(config[key] for key in ("os", "architecture", "variant") if config.get(key))


def _config(config: dict) -> dict:
    """The run configuration without empty fields."""
    return {key: value for key, value in sorted(config.items()) if value not in (None, "", [], {}, False)}


def _history(config: dict, base_layers: int) -> list[str]:
    """The build's own history: `+` marks a step with a layer, `-` one without."""
    own, seen = [], 0
    for entry in config.get("history", []):
        filled = not entry.get("empty_layer")
        if seen >= base_layers:
            text = entry.get("created_by", "").removesuffix(BUILDKIT_MARK)
            own.append(f"{'+' if filled else '-'} {text}")
        seen += filled
    return own


def _changed(tree: oci.Tree, base: oci.Tree) -> dict[str, dict]:
    """Every path that the build added or changed."""
    links: dict[int, list[str]] = {}
    for path, node in tree.items():
        links.setdefault(id(node), []).append(path)
    return {path: _entry(path, node, links[id(node)]) for path, node in sorted(tree.items())
            if path != "/" and not _same(node, base.get(path))}


def _same(node: oci.Node, other: oci.Node | None) -> bool:
    """True when nothing but the time differs."""
    return other is not None and _facts(node) == _facts(other)


def _facts(node: oci.Node) -> tuple:
    return (node.kind, node.mode, node.owner, node.content, node.target, node.device, node.xattrs)


def _entry(path: str, node: oci.Node, names: list[str]) -> dict:
    """One path of the tree."""
    entry: dict = {"type": node.kind, "mode": f"{node.mode:04o}", "owner": f"{node.owner[0]}:{node.owner[1]}"}
    if node.kind == "symlink":
        entry = {"type": node.kind, "target": node.target, "owner": entry["owner"]}
    if node.kind == "file":
        entry |= _content(node.content)
        if node.mtime < KEPT_TIMES_BEFORE:
            entry["mtime"] = node.mtime
    if node.device is not None:
        entry["device"] = f"{node.device[0]}:{node.device[1]}"
    if node.xattrs:
        entry["xattrs"] = dict(sorted(node.xattrs.items()))
    others = sorted(name for name in names if name != path)
    if others:
        entry["links"] = others if len(others) < LINKS_MAX else len(others)
    return entry


def _content(data: bytes) -> dict:
    """A short text as it is, anything else by size and digest."""
    if len(data) <= TEXT_MAX:
        try:
            text = data.decode()
        except UnicodeDecodeError:
            text = "\0"
        if text.replace("\n", "").replace("\t", "").isprintable():
            return {"text": text}
    return {"size": len(data), "sha256": hashlib.sha256(data).hexdigest()}


def failure(message: str, dockerfile: str) -> dict:
    """The comparable form of a failed build: the Dockerfile's line that the message names first, or null."""
    named = re.search(rf"(?:^|[\s/(\"'`]){re.escape(dockerfile)}:(\d+)", message, re.MULTILINE)
    return {"error": {"line": int(named.group(1)) if named else None}}
