"""Writes a case's build context to disk from the `files` table of its `case.toml`.

A value is the text of a file, or a table with one of `text`, `hex`, `repeat`+`times`, `symlink`, `hardlink`, `fifo`,
`device` ("c 1 3"), `tar` (a table of the same form, packed; `compress` = gz, xz, bz2 or zst) and optionally `mode`, `mtime`,
`owner` ("uid:gid"), `xattrs` (name = hex). A path that ends in "/" is a directory. All times are fixed, so that a file's
time in the image shows whether a builder kept it.
"""
from __future__ import annotations

import bz2
import gzip
import io
import lzma
import os
import subprocess
import tarfile
from pathlib import Path

from .case import BadCase, Case

EPOCH = 1_600_000_000
FILE_MODE, DIRECTORY_MODE = "0644", "0755"
COMPRESSORS = {
    "": lambda data: data,
    "gz": lambda data: gzip.compress(data, mtime=0),
    "xz": lzma.compress,
    "bz2": bz2.compress,
    "zst": lambda data: subprocess.run(["zstd", "-q", "-c"], input=data, check=True, capture_output=True).stdout,
}


def write(case: Case, folder: Path, drop_syntax: bool = False) -> None:
    """Fills `folder` with the case's context, its Dockerfile included."""
    os.umask(0o022)
    for path, value in case.files.items():
        _write_entry(folder, path, _table(value))
    dockerfile = folder / case.file
    dockerfile.parent.mkdir(parents=True, exist_ok=True)
    dockerfile.write_bytes(_without_syntax(case.dockerfile) if drop_syntax else case.dockerfile)
    _fix_times(case, folder)


def _without_syntax(dockerfile: bytes) -> bytes:
    """The Dockerfile without its `# syntax` line."""
    lines = dockerfile.splitlines(keepends=True)
    return b"".join(line for line in lines if not line.lower().replace(b" ", b"").startswith(b"#syntax="))


def _table(value: str | dict) -> dict:
    """The long form of a file's description."""
    return {"text": value} if isinstance(value, str) else value


def _content(path: str, spec: dict) -> bytes:
    """The bytes of a regular file."""
    if "tar" in spec:
        return COMPRESSORS[spec.get("compress", "")](_pack(spec["tar"]))
    if "hex" in spec:
        return bytes.fromhex(spec["hex"])
    if "repeat" in spec:
        return spec["repeat"].encode() * spec["times"]
    if "text" in spec:
        return spec["text"].encode()
    raise BadCase(f"{path}: says neither what is in it nor what it is")


def _write_entry(folder: Path, path: str, spec: dict) -> None:
    """Makes one file, directory, link or special file."""
    place = folder / path
    place.parent.mkdir(parents=True, exist_ok=True)
    if "symlink" in spec:
        place.symlink_to(spec["symlink"])
        return
    if "hardlink" in spec:
        place.hardlink_to(folder / spec["hardlink"])
        return
    if path.endswith("/"):
        place.mkdir(exist_ok=True)
    elif "fifo" in spec:
        os.mkfifo(place)
    else:
        place.write_bytes(_content(path, spec))
    for name, value in spec.get("xattrs", {}).items():
        os.setxattr(place, name, bytes.fromhex(value))
    if "owner" in spec:
        os.chown(place, *map(int, spec["owner"].split(":")))
    place.chmod(int(spec.get("mode", DIRECTORY_MODE if path.endswith("/") else FILE_MODE), 8))


def _fix_times(case: Case, folder: Path) -> None:
    """Gives everything its fixed time, children before their directories."""
    times = {path.rstrip("/"): _table(value).get("mtime", EPOCH) for path, value in case.files.items()}
    for base, _, files in os.walk(folder, topdown=False):
        for place in [*(Path(base, name) for name in files), Path(base)]:
            time = times.get(str(place.relative_to(folder)), EPOCH)
            os.utime(place, (time, time), follow_symlinks=False)
    for link in (p for p in folder.rglob("*") if p.is_symlink()):
        os.utime(link, (EPOCH, EPOCH), follow_symlinks=False)


def _pack(entries: dict[str, str | dict]) -> bytes:
    """A tar of the described entries, in their order and with their names as they are (also hostile ones)."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for path, value in entries.items():
            info, data = _tar_entry(path, _table(value))
            tar.addfile(info, io.BytesIO(data) if data else None)
    return out.getvalue()


def _tar_entry(path: str, spec: dict) -> tuple[tarfile.TarInfo, bytes]:
    """The header and the content of one entry of a tar."""
    info, data = tarfile.TarInfo(path.rstrip("/") or path), b""
    info.mtime = spec.get("mtime", EPOCH)
    info.uid, info.gid = map(int, spec.get("owner", "0:0").split(":"))
    info.mode = int(spec.get("mode", DIRECTORY_MODE if path.endswith("/") else FILE_MODE), 8)
    if "symlink" in spec:
        info.type, info.linkname = tarfile.SYMTYPE, spec["symlink"]
    elif "hardlink" in spec:
        info.type, info.linkname = tarfile.LNKTYPE, spec["hardlink"]
    elif "fifo" in spec:
        info.type = tarfile.FIFOTYPE
    elif "device" in spec:
        kind, major, minor = spec["device"].split()
        info.type = tarfile.CHRTYPE if kind == "c" else tarfile.BLKTYPE
        info.devmajor, info.devminor = int(major), int(minor)
    elif path.endswith("/"):
        info.type = tarfile.DIRTYPE
    else:
        data = _content(path, spec)
        info.size = len(data)
    for name, value in spec.get("xattrs", {}).items():
        info.pax_headers["SCHILY.xattr." + name] = bytes.fromhex(value).decode("utf-8", "surrogateescape")
    return info, data
