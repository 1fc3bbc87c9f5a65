#!/usr/bin/env python3
"""Tests of the conformance harness itself: `python3 conformance/test_harness.py`. Needs no root and no builder."""
from __future__ import annotations

import gzip
import hashlib
import io
import json
import tarfile
import tempfile
import unittest
from pathlib import Path

from harness import case, compare, context, normal, oci

import base_images
from base_images import Entry, directory, text


def blob(files: dict[str, bytes], data: bytes) -> dict:
    """Adds a blob to an archive's files and returns its descriptor."""
    digest = hashlib.sha256(data).hexdigest()
    files[f"blobs/sha256/{digest}"] = data
    return {"digest": f"sha256:{digest}", "size": len(data)}


def archive(place: Path, layers: list[bytes], history: int, spoil: bool = False) -> Path:
    """Writes an OCI archive with these layers; `spoil` changes a byte of the config after its digest was taken."""
    files = {"oci-layout": b"{}"}
    diff_ids = ["sha256:" + hashlib.sha256(layer).hexdigest() for layer in layers]
    config = json.dumps({"os": "linux", "architecture": "amd64", "rootfs": {"diff_ids": diff_ids},
                         "history": [{"created_by": f"step {n}"} for n in range(history)]}).encode()
    described = blob(files, config)
    manifest = json.dumps({"config": described, "layers": [blob(files, gzip.compress(layer)) for layer in layers]})
    files["index.json"] = json.dumps({"manifests": [blob(files, manifest.encode())]}).encode()
    if spoil:
        files["blobs/sha256/" + described["digest"].removeprefix("sha256:")] = config.replace(b"amd64", b"arm64")
    with tarfile.open(place, "w") as tar:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return place


def flatten(*layers: list[Entry]) -> oci.Tree:
    """The tree of layers given as entries."""
    return oci.flatten([base_images.tar_bytes(layer) for layer in layers])


class Flatten(unittest.TestCase):
    """Layers over each other."""

    def test_a_whiteout_removes_a_path_and_what_is_below(self):
        tree = flatten([directory("d"), text("d/f", "f"), text("e", "e")], [Entry("d", "w")])
        self.assertEqual(list(tree), ["/e"])

    def test_an_opaque_marker_spares_the_own_entries_of_its_layer(self):
        tree = flatten([directory("d"), text("d/old", "o")], [directory("d"), text("d/new", "n"), Entry("d", "o")])
        self.assertEqual(sorted(tree), ["/d", "/d/new"])

    def test_a_whiteout_of_nothing_is_refused(self):
        with self.assertRaisesRegex(oci.BadImage, "hides /f"):
            flatten([Entry("f", "w")])

    def test_a_file_over_a_directory_takes_what_was_below(self):
        tree = flatten([directory("d"), text("d/f", "f")], [text("d", "file")])
        self.assertEqual({path: node.kind for path, node in tree.items()}, {"/d": "file"})

    def test_hard_links_share_a_node_until_one_is_replaced(self):
        first = [text("a", "x"), Entry("b", "h", target="a")]
        tree = flatten(first)
        self.assertIs(tree["/a"], tree["/b"])
        tree = flatten(first, [text("b", "y")])
        self.assertEqual((tree["/a"].content, tree["/b"].content), (b"x", b"y"))

    def test_a_climbing_member_is_refused(self):
        with self.assertRaisesRegex(oci.BadImage, r"\.\./f"):
            flatten([text("../f", "x")])


class Archive(unittest.TestCase):
    """Archives that must not pass."""

    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.place = Path(folder.name, "image.tar")
        self.layer = base_images.tar_bytes([text("f", "f")])

    def test_a_sound_archive_is_read(self):
        self.assertEqual(oci.read(archive(self.place, [self.layer], 1)).layers, [self.layer])

    def test_a_wrong_digest_is_seen(self):
        with self.assertRaisesRegex(oci.BadImage, "another digest"):
            oci.read(archive(self.place, [self.layer], 1, spoil=True))

    def test_a_history_without_the_layer_is_seen(self):
        with self.assertRaisesRegex(oci.BadImage, "history speaks of 0"):
            oci.read(archive(self.place, [self.layer], 0))


class Compare(unittest.TestCase):
    """Differences and accepted differences."""

    def test_equal_documents_have_no_differences(self):
        document = {"config": {"Env": ["A=1"]}, "tree": {"/f": {"mode": "0644"}}}
        self.assertEqual(compare.differences(document, document), [])

    def test_a_fact_and_a_path_are_named(self):
        one = {"tree": {"/f": {"mode": "0644"}, "/g": {"mode": "0644"}}}
        two = {"tree": {"/f": {"mode": "0600"}}}
        self.assertEqual([d.key for d in compare.differences(one, two)], ["tree./g", "tree./f.mode"])

    def test_an_image_is_not_an_error(self):
        self.assertTrue(compare.differences({"error": {"line": 1}}, {"tree": {}}))

    def test_an_entry_covers_its_case_and_keys_only(self):
        known, difference = compare.Known("c", ("tree./f.*",), "why"), compare.Difference("tree./f.mode", "1", "2")
        self.assertTrue(known.covers("c", difference))
        self.assertFalse(known.covers("d", difference))
        self.assertFalse(known.covers("c", compare.Difference("tree./g", "1", "2")))

    def test_every_accepted_difference_names_a_case_and_a_reason(self):
        for known in compare.load_known() + compare.load_known("buildkit"):
            self.assertIn(known.case, case.names())
            self.assertGreater(len(known.reason), 20, known.case)


class Failures(unittest.TestCase):
    """The line of an error."""

    def test_the_line_after_the_file_name_is_taken(self):
        for message in ("Dockerfile:12\n---", "  --> /tmp/x/Dockerfile:12:3", "error: x (Dockerfile:12)"):
            self.assertEqual(normal.failure(message, "Dockerfile"), {"error": {"line": 12}})

    def test_no_line_is_null(self):
        self.assertEqual(normal.failure("not myDockerfile:3", "Dockerfile"), {"error": {"line": None}})


class Cases(unittest.TestCase):
    """The committed cases."""

    def test_every_case_loads_and_has_its_expectation(self):
        for name in case.names():
            with self.subTest(name):
                loaded = case.load(name)
                self.assertTrue(loaded.about)
                expected = json.loads(loaded.expectation.read_text())
                self.assertEqual("error" in expected, loaded.error is not None)

    def test_no_expectation_is_left_over(self):
        self.assertEqual(sorted(p.stem for p in case.EXPECTED.iterdir()), case.names())

    def test_contexts_are_the_same_each_time(self):
        wanted = case.load("copy-modes")
        trees = []
        for _ in range(2):
            with tempfile.TemporaryDirectory() as folder:
                context.write(wanted, Path(folder))
                trees.append(sorted((str(p.relative_to(folder)), p.lstat().st_mode, p.lstat().st_mtime)
                                    for p in Path(folder).rglob("*")))
        self.assertEqual(trees[0], trees[1])


if __name__ == "__main__":
    unittest.main()
