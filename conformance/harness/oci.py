"""Reads an OCI image archive: checks its digests and flattens its layers into one tree."""
from __future__ import annotations

import gzip
import hashlib
import io
import json
import subprocess
import tarfile
from dataclasses import dataclass, field
from pathlib import Path

WHITEOUT, OPAQUE = ".wh.", ".wh..wh..opq"
XATTR = "SCHILY.xattr."
KINDS = {tarfile.REGTYPE: "file", tarfile.AREGTYPE: "file", tarfile.DIRTYPE: "directory", tarfile.SYMTYPE: "symlink",
         tarfile.FIFOTYPE: "fifo", tarfile.CHRTYPE: "char", tarfile.BLKTYPE: "block"}
GZIP_MAGIC, ZSTD_MAGIC = b"\x1f\x8b", b"\x28\xb5\x2f\xfd"


class BadImage(Exception):
    """An archive that breaks the image format; the text says where."""


@dataclass
class Node:
    """An inode of the flattened tree; hard links are paths that share one."""

    kind: str
    mode: int
    owner: tuple[int, int]
    mtime: int
    content: bytes = b""
    target: str = ""
    device: tuple[int, int] | None = None
    xattrs: dict[str, str] = field(default_factory=dict)


Tree = dict[str, Node]


@dataclass
class Image:
    """One platform's image: its config document and its layers as uncompressed tars, from the bottom."""

    config: dict
    layers: list[bytes]


def read(archive: Path) -> Image:
    """Reads the one image of an OCI archive; raises `BadImage` when a digest, a count or the format is wrong."""
    with tarfile.open(archive) as tar:
        files = {m.name.removeprefix("./"): tar.extractfile(m).read() for m in tar.getmembers() if m.isfile()}
    if "oci-layout" not in files or "index.json" not in files:
        raise BadImage("not an OCI archive: oci-layout or index.json is missing")
    manifest = _manifest(files, json.loads(files["index.json"]))
    config = json.loads(_blob(files, manifest["config"]))
    layers = [_inflate(_blob(files, each)) for each in manifest["layers"] or []]
    diff_ids = ["sha256:" + hashlib.sha256(layer).hexdigest() for layer in layers]
    if diff_ids != (config["rootfs"]["diff_ids"] or []):
        raise BadImage("the config's diff_ids are not those of the layers")
    filled = [entry for entry in config.get("history", []) if not entry.get("empty_layer")]
    if len(filled) != len(layers):
        raise BadImage(f"the history speaks of {len(filled)} layers, the image has {len(layers)}")
    return Image(config, layers)


def _blob(files: dict[str, bytes], descriptor: dict) -> bytes:
    """The bytes that a descriptor names, checked."""
    algorithm, _, value = descriptor["digest"].partition(":")
    data = files.get(f"blobs/{algorithm}/{value}")
    if data is None:
        raise BadImage(f"blob {descriptor['digest']} is missing")
    if hashlib.sha256(data).hexdigest() != value or len(data) != descriptor["size"]:
        raise BadImage(f"blob {descriptor['digest']} has another digest or size")
    return data


def _manifest(files: dict[str, bytes], index: dict) -> dict:
    """The only image manifest below an index, attestations aside."""
    real = [d for d in index["manifests"]
            if d.get("annotations", {}).get("vnd.docker.reference.type") != "attestation-manifest"]
    if len(real) != 1:
        raise BadImage(f"{len(real)} images in the archive, not one")
    document = json.loads(_blob(files, real[0]))
    return _manifest(files, document) if "manifests" in document else document


def _inflate(data: bytes) -> bytes:
    """A layer's tar, whatever its compression."""
    if data.startswith(GZIP_MAGIC):
        return gzip.decompress(data)
    if data.startswith(ZSTD_MAGIC):
        return subprocess.run(["zstd", "-q", "-d", "-c"], input=data, check=True, capture_output=True).stdout
    return data


def flatten(layers: list[bytes]) -> Tree:
    """The tree that the layers make, as an unpacker would see it."""
    tree: Tree = {}
    for number, layer in enumerate(layers):
        _apply(tree, layer, number)
    return tree


def _apply(tree: Tree, layer: bytes, number: int) -> None:
    """Lays one layer over the tree. Whiteouts of a layer never hide the layer's own entries."""
    own: set[str] = set()
    with tarfile.open(fileobj=io.BytesIO(layer), mode="r:") as tar:
        for member in tar:
            path = _clean(member.name, number)
            folder, _, name = path.rpartition("/")
            if name == OPAQUE:
                _remove(tree, folder, own, keep_top=True)
            elif name.startswith(WHITEOUT):
                hidden = f"{folder}/{name.removeprefix(WHITEOUT)}"
                if hidden not in tree:
                    raise BadImage(f"layer {number} hides {hidden}, which is not there")
                _remove(tree, hidden, own)
            else:
                _place(tree, path, member, tar, own, number)
                own.add(path)


def _clean(name: str, number: int) -> str:
    """The absolute form of a member's name; raises `BadImage` for a name that climbs."""
    parts = [p for p in name.split("/") if p not in ("", ".")]
    if ".." in parts:
        raise BadImage(f"layer {number} has a member {name!r}")
    return "/" + "/".join(parts)


def _remove(tree: Tree, path: str, own: set[str], keep_top: bool = False) -> None:
    """Removes a path and what is below it, but nothing that the current layer brought."""
    below = path.rstrip("/") + "/"
    for each in [p for p in tree if p.startswith(below) and p not in own]:
        del tree[each]
    if not keep_top and path not in own:
        tree.pop(path, None)


def _place(tree: Tree, path: str, member: tarfile.TarInfo, tar: tarfile.TarFile, own: set[str], number: int) -> None:
    """Puts one member into the tree."""
    if member.islnk():
        target = _clean(member.linkname, number)
        if target not in tree:
            raise BadImage(f"layer {number}: {path} links to {target}, which is not there")
        tree[path] = tree[target]
        return
    if not member.isdir() and path in tree and tree[path].kind == "directory":
        _remove(tree, path, own)
    kind = KINDS.get(member.type)
    if kind is None:
        raise BadImage(f"layer {number}: {path} is of an unknown type {member.type!r}")
    content = tar.extractfile(member).read() if kind == "file" else b""
    xattrs = {name.removeprefix(XATTR): value.encode("utf-8", "surrogateescape").hex()
              for name, value in member.pax_headers.items() if name.startswith(XATTR)}
    device = (member.devmajor, member.devminor) if kind in ("char", "block") else None
    tree[path] = Node(kind, member.mode & 0o7777, (member.uid, member.gid), int(member.mtime), content,
                      member.linkname if kind == "symlink" else "", device, xattrs)
