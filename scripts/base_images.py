#!/usr/bin/env python3
"""Makes the base images that the conformance cases and the benchmark build on, and pushes them to a registry.

    base_images.py REGISTRY          push every image to http://REGISTRY (as 127.0.0.1:5077)
    base_images.py --list            print the names

The images are made from Debian's busybox-static and from the lists below, byte for byte the same on every run of one
busybox version, so what BuildKit and Ashlar make of them can be compared by digest of the base layers. Standard library
only; `zstd` (Debian package of that name) makes the one zstd-compressed image.
"""
from __future__ import annotations

import argparse
import gzip
import hashlib
import http.client
import io
import json
import shutil
import subprocess
import sys
import tarfile
from dataclasses import dataclass, field
from pathlib import Path

EPOCH = 1_700_000_000
CREATED = "2023-11-14T22:13:20Z"
DEFAULT_PATH = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

OCI = "application/vnd.oci.image."
OCI_INDEX = OCI + "index.v1+json"
OCI_MANIFEST = OCI + "manifest.v1+json"
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
MEDIA_TYPES = {
    "gzip": (OCI_MANIFEST, OCI + "config.v1+json", OCI + "layer.v1.tar+gzip"),
    "zstd": (OCI_MANIFEST, OCI + "config.v1+json", OCI + "layer.v1.tar+zstd"),
    "docker": (DOCKER_MANIFEST, "application/vnd.docker.container.image.v1+json",
               "application/vnd.docker.image.rootfs.diff.tar.gzip"),
}


class Failure(Exception):
    """Something that the caller must put right; its text says what."""


@dataclass(frozen=True)
class Entry:
    """One entry of a layer. `kind`: f file, d directory, l symlink, h hard link, w whiteout, o opaque marker."""

    path: str
    kind: str = "f"
    content: bytes = b""
    mode: int | None = None
    owner: tuple[int, int] = (0, 0)
    target: str = ""

    def tar_info(self) -> tarfile.TarInfo:
        """The tar header that says this entry, with a fixed time."""
        head, _, name = self.path.rpartition("/")
        prefix = head + "/" if head else ""
        stored = {"w": f"{prefix}.wh.{name}", "o": f"{self.path}/.wh..wh..opq"}.get(self.kind, self.path)
        info = tarfile.TarInfo(stored)
        info.mtime = EPOCH
        info.uid, info.gid = self.owner
        info.mode = self.mode if self.mode is not None else 0o755 if self.kind == "d" else 0o644
        info.type = {"d": tarfile.DIRTYPE, "l": tarfile.SYMTYPE, "h": tarfile.LNKTYPE}.get(self.kind, tarfile.REGTYPE)
        info.linkname = self.target
        info.size = len(self.content) if self.kind == "f" else 0
        return info


@dataclass(frozen=True)
class Image:
    """An image to push: layers from the bottom, the OCI `config` object, and one platform's name."""

    layers: list[list[Entry]]
    config: dict
    architecture: str = "amd64"
    form: str = "gzip"


@dataclass
class Named:
    """A repository and its tags, each an image or (several platforms) a list of them."""

    repository: str
    tags: dict[str, Image | list[Image]] = field(default_factory=dict)


def directory(path: str, mode: int = 0o755, owner: tuple[int, int] = (0, 0)) -> Entry:
    """A directory entry."""
    return Entry(path, "d", mode=mode, owner=owner)


def text(path: str, content: str, mode: int = 0o644, owner: tuple[int, int] = (0, 0)) -> Entry:
    """A regular file with text in it."""
    return Entry(path, content=content.encode(), mode=mode, owner=owner)


PASSWD = """\
root:x:0:0:root:/root:/bin/sh
daemon:x:1:1:daemon:/usr/sbin:/bin/false
bin:x:2:2:bin:/bin:/bin/false
mail:x:8:8:mail:/var/spool/mail:/bin/false
www-data:x:33:33:www-data:/var/www:/bin/false
operator:x:37:37:Operator:/var:/bin/false
nobody:x:65534:65534:nobody:/home:/bin/false
"""
GROUP = """\
root:x:0:
daemon:x:1:
bin:x:2:
mail:x:8:
www-data:x:33:
wheel:x:10:root
operator:x:37:
users:x:100:operator
nobody:x:65534:
"""


def busybox_layer() -> list[Entry]:
    """A root file system around Debian's static busybox, its applets as hard links (so links are tested everywhere)."""
    binary = shutil.which("busybox")
    if binary is None:
        raise Failure("busybox is not installed: apt-get install busybox-static")
    applets = subprocess.run([binary, "--list"], check=True, capture_output=True, text=True).stdout.split()
    entries = [directory(p) for p in ("bin", "dev", "etc", "home", "lib", "proc", "sys", "usr", "usr/bin", "usr/sbin",
                                      "var", "var/spool")]
    entries += [directory("root", 0o700), directory("tmp", 0o1777), directory("var/spool/mail", owner=(8, 8)),
                directory("var/www", owner=(33, 33))]
    entries.append(Entry("bin/busybox", content=Path(binary).read_bytes(), mode=0o755))
    entries += [Entry(f"bin/{a}", "h", target="bin/busybox", mode=0o755) for a in sorted(applets) if a != "busybox"]
    entries.append(Entry("usr/bin/env", "l", target="../../bin/env", mode=0o777))
    entries += [text("etc/passwd", PASSWD), text("etc/group", GROUP),
                text("etc/shadow", "root:*:10933:0:99999:7:::\n", 0o640),
                text("etc/os-release", "NAME=busybox\nID=busybox\n")]
    return entries


def layers_image(base: list[Entry], form: str) -> Image:
    """Whiteouts, an opaque directory, links over layers, odd modes and owners: what an unpacker gets wrong."""
    first = [
        directory("a"), text("a/one", "1"), text("a/two", "2"),
        directory("b", 0o700), directory("b/deep"), text("b/deep/x", "x"),
        text("f2d", "was a file"), directory("d2f"), text("d2f/in", "in"),
        text("hl1", "linked", 0o600), Entry("hl2", "h", target="hl1", mode=0o600),
        Entry("sym", "l", target="a/one", mode=0o777), Entry("symdir", "l", target="a", mode=0o777),
        text("setuid", "s", 0o4755), directory("sticky", 0o1777), text("owned", "o", owner=(1000, 1001)),
    ]
    second = [
        Entry("a/one", "w"), text("a/three", "3"),
        directory("b", 0o700), Entry("b", "o"), text("b/new", "n"),
        directory("f2d"), text("f2d/now", "dir"), text("d2f", "now a file"), Entry("hl1", "w"), Entry("sym", "w"),
    ]
    third = [text("a/one", "back")]
    return Image([base, first, second, third], {"Env": [DEFAULT_PATH], "Cmd": ["sh"]}, form=form)


def rich_config() -> dict:
    """An image config with every field set that a stage inherits."""
    return {
        "Env": ["PATH=/usr/local/bin:/bin:/usr/bin", "BASE=one", "SPACED=a b  c", "EMPTY=", 'QUOTE=say "hi"'],
        "User": "33:100", "WorkingDir": "/var/www",
        "Entrypoint": ["/bin/sh", "-c", 'exec "$0" "$@"'], "Cmd": ["echo", "base"],
        "ExposedPorts": {"80/tcp": {}, "53/udp": {}}, "Volumes": {"/data": {}, "/var/lib/vol": {}},
        "Labels": {"org.base": "1", "keep": "yes"}, "StopSignal": "SIGQUIT",
        "Healthcheck": {"Test": ["CMD", "/bin/true"], "Interval": 30_000_000_000, "Retries": 2},
        "Shell": ["/bin/sh", "-e", "-c"],
    }


def all_images() -> list[Named]:
    """Every image, by repository. Docker's short names are those of `library/`."""
    base = busybox_layer()
    plain = {"Env": [DEFAULT_PATH], "Cmd": ["sh"]}
    busybox = Image([base], plain)
    onbuild = dict(plain, OnBuild=["ENV FROM_ONBUILD=yes", "RUN echo built >/onbuild-ran", "COPY payload /payload",
                                   "WORKDIR /onwork"])
    platforms = [Image([base, [text("platform", arch)]], dict(plain, Labels={"arch": arch}), arch)
                 for arch in ("amd64", "arm64")]
    return [
        Named("library/busybox", {"latest": busybox, "1.35": busybox}),
        Named("cases/onbuild", {"latest": Image([base], onbuild)}),
        Named("cases/rich", {"latest": Image([base], rich_config())}),
        Named("cases/layers", {"latest": layers_image(base, "gzip"), "zstd": layers_image(base, "zstd"),
                               "docker": layers_image(base, "docker")}),
        Named("cases/multi", {"latest": platforms}),
    ]


def tar_bytes(entries: list[Entry]) -> bytes:
    """A layer as an uncompressed tar."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for entry in entries:
            info = entry.tar_info()
            tar.addfile(info, io.BytesIO(entry.content) if info.isreg() else None)
    return out.getvalue()


def compressed(tar: bytes, form: str) -> bytes:
    """The layer as it is stored in the registry."""
    if form != "zstd":
        return gzip.compress(tar, 6, mtime=0)
    if shutil.which("zstd") is None:
        raise Failure("zstd is not installed: apt-get install zstd")
    return subprocess.run(["zstd", "-q", "-3", "-c", "-T1"], input=tar, check=True, capture_output=True).stdout


def digest(data: bytes) -> str:
    """The OCI digest of some bytes."""
    return "sha256:" + hashlib.sha256(data).hexdigest()


class Registry:
    """The few calls of the distribution API that a push takes, over plain http."""

    def __init__(self, address: str):
        self.address = address

    def call(self, method: str, path: str, body: bytes = b"", headers: dict | None = None) -> http.client.HTTPResponse:
        """Sends one request and reads the answer's body away; raises `Failure` when nothing answers."""
        connection = http.client.HTTPConnection(self.address, timeout=30)
        try:
            connection.request(method, path, body=body, headers=headers or {})
            response = connection.getresponse()
            response.read()
            return response
        except OSError as error:
            raise Failure(f"no registry answers on http://{self.address}: {error}") from error
        finally:
            connection.close()

    def push_blob(self, repository: str, data: bytes) -> str:
        """Uploads a blob unless the repository has it, and returns its digest."""
        name = digest(data)
        if self.call("HEAD", f"/v2/{repository}/blobs/{name}").status == 200:
            return name
        start = self.call("POST", f"/v2/{repository}/blobs/uploads/")
        place = start.getheader("Location") or ""
        place = place.removeprefix(f"http://{self.address}")
        joint = "&" if "?" in place else "?"
        done = self.call("PUT", f"{place}{joint}digest={name}", data, {"Content-Type": "application/octet-stream"})
        self._expect(done, 201, f"blob {name} of {repository}")
        return name

    def push_manifest(self, repository: str, reference: str, data: bytes, media_type: str) -> None:
        """Stores a manifest or an index under a tag or its digest."""
        done = self.call("PUT", f"/v2/{repository}/manifests/{reference}", data, {"Content-Type": media_type})
        self._expect(done, 201, f"manifest {repository}:{reference}")

    @staticmethod
    def _expect(response: http.client.HTTPResponse, status: int, what: str) -> None:
        if response.status != status:
            raise Failure(f"the registry refused {what}: status {response.status}")


def push_image(registry: Registry, repository: str, reference: str | None, image: Image) -> dict:
    """Pushes one platform's image under a tag (None: its digest) and returns its descriptor."""
    manifest_type, config_type, layer_type = MEDIA_TYPES[image.form]
    layers, diff_ids = [], []
    for entries in image.layers:
        tar = tar_bytes(entries)
        blob = compressed(tar, image.form)
        diff_ids.append(digest(tar))
        layers.append({"mediaType": layer_type, "size": len(blob), "digest": registry.push_blob(repository, blob)})
    history = [{"created": CREATED, "created_by": f"layer {number}"} for number in range(len(layers))]
    config = json.dumps({"created": CREATED, "architecture": image.architecture, "os": "linux", "config": image.config,
                         "rootfs": {"type": "layers", "diff_ids": diff_ids}, "history": history}).encode()
    described = {"mediaType": config_type, "size": len(config), "digest": registry.push_blob(repository, config)}
    manifest = json.dumps({"schemaVersion": 2, "mediaType": manifest_type, "config": described,
                           "layers": layers}).encode()
    registry.push_manifest(repository, reference or digest(manifest), manifest, manifest_type)
    return {"mediaType": manifest_type, "size": len(manifest), "digest": digest(manifest),
            "platform": {"architecture": image.architecture, "os": "linux"}}


def push_all(address: str) -> list[str]:
    """Makes every image, pushes it, and returns the references."""
    registry, pushed = Registry(address), []
    for named in all_images():
        for tag, image in named.tags.items():
            if isinstance(image, list):
                manifests = [push_image(registry, named.repository, None, each) for each in image]
                index = json.dumps({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": manifests}).encode()
                registry.push_manifest(named.repository, tag, index, OCI_INDEX)
            else:
                push_image(registry, named.repository, tag, image)
            pushed.append(f"{named.repository}:{tag}")
    return pushed


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("registry", nargs="?", help="address of a plain-http registry, as 127.0.0.1:5077")
    parser.add_argument("--list", action="store_true", help="print the references and stop")
    options = parser.parse_args()
    try:
        if options.list:
            print(*(f"{n.repository}:{t}" for n in all_images() for t in n.tags), sep="\n")
        elif options.registry is None:
            parser.error("name a registry, or --list")
        else:
            print(*push_all(options.registry), sep="\n")
    except Failure as failure:
        print(f"error: {failure}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
