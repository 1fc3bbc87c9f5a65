"""The builds that are measured: how their contexts are made, and what changes before each timed build."""
from __future__ import annotations

import io
import os
import tarfile
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

BASE = "FROM busybox\n"
MIB = 1 << 20
FILES_IN_CONTEXT, FILES_PER_DIRECTORY, SMALL_FILE_BYTES = 50_000, 100, 64
BIG_FILE_BYTES = 1024 * MIB
LAYER_BYTES = 128 * MIB
UNPACKED_FILES, UNPACKED_FILE_BYTES = 30_000, 600
PARALLEL_STAGES, MANY_STEPS = 20, 100

Change = Callable[[Path], None]


@dataclass(frozen=True)
class Phase:
    """One row of the table. `change` prepares the context, untimed; `reach` is the wanted ratio to the faster BuildKit.

    `output` is what becomes of the image: kept in the builder's `store`, an `archive`, an `oci` one, or a `push`.
    """

    key: str
    title: str
    reach: float
    change: Change
    output: str = "store"


@dataclass(frozen=True)
class Group:
    """Rows that share a context and follow each other on the same builder.

    `heavy` groups run fewer times; those that are `primed` are built once, untimed, before the rounds begin.
    """

    make: Change
    phases: tuple[Phase, ...]
    heavy: bool = False
    primed: bool = False


def nonce() -> str:
    """A text that no earlier build has seen."""
    return uuid.uuid4().hex


def unchanged(_: Path) -> None:
    """Nothing changes."""


def empty(_: Path) -> None:
    """The context begins empty."""


def tiny(context: Path) -> None:
    """Two RUN and one COPY, all new."""
    (context / "f").write_text(nonce())
    (context / "Dockerfile").write_text(f"{BASE}RUN echo {nonce()} > /a\nCOPY f /f\nRUN cat /f > /b\n")


def twelve_steps(middle: str) -> str:
    """Twelve RUN, the sixth as given."""
    lines = [f"RUN echo step {n} > /s{n}" for n in range(1, 13)]
    lines[5] = f"RUN echo {middle} > /s6"
    return BASE + "\n".join(lines) + "\n"


def sixth_changed(context: Path) -> None:
    """The sixth of twelve RUN is new."""
    (context / "Dockerfile").write_text(twelve_steps(nonce()))


def small_files(context: Path) -> None:
    """Writes all the small files anew."""
    text = nonce()
    for number in range(FILES_IN_CONTEXT):
        if number % FILES_PER_DIRECTORY == 0:
            folder = context / "src" / f"d{number // FILES_PER_DIRECTORY}"
            folder.mkdir(parents=True, exist_ok=True)
        (folder / f"f{number}").write_text(f"{text} {number}".ljust(SMALL_FILE_BYTES, "."))
    (context / "Dockerfile").write_text(BASE + "COPY src /src\nRUN ls /src | wc -l > /count\n")


def one_small_file(context: Path) -> None:
    """Changes one of the small files."""
    (context / "src/d250/f25042").write_text(nonce().ljust(SMALL_FILE_BYTES, "."))


def big_file(context: Path) -> None:
    """Makes the 1 GiB file of random bytes."""
    with open(context / "big", "wb") as out:
        for _ in range(BIG_FILE_BYTES // MIB):
            out.write(os.urandom(MIB))
    (context / "Dockerfile").write_text(BASE + "COPY big /big\n")


def big_file_in_place(context: Path) -> None:
    """Changes some bytes of the big file where they lie."""
    with open(context / "big", "r+b") as out:
        out.write(nonce().encode())


def stages(context: Path) -> None:
    """Many different stages that only wait, joined at the end."""
    text = nonce()
    lines = [f"{BASE.strip()} AS s{n}\nRUN echo {text} {n} > /o{n} && sleep 0.5" for n in range(PARALLEL_STAGES)]
    lines += [BASE.strip(), *(f"COPY --from=s{n} /o{n} /o{n}" for n in range(PARALLEL_STAGES))]
    (context / "Dockerfile").write_text("\n".join(lines) + "\n")


def many_steps(context: Path) -> None:
    """A hundred RUN, all new."""
    text = nonce()
    (context / "Dockerfile").write_text(BASE + "".join(f"RUN echo {text} {n}\n" for n in range(MANY_STEPS)))


def archive_of_files(context: Path) -> None:
    """Packs the files that a RUN unpacks."""
    with tarfile.open(context / "files.tar", "w") as tar:
        for number in range(UNPACKED_FILES):
            info = tarfile.TarInfo(f"d{number // 300}/f{number}")
            info.size = UNPACKED_FILE_BYTES
            tar.addfile(info, io.BytesIO(f"{number} ".encode().ljust(UNPACKED_FILE_BYTES, b"x")))


def unpack(context: Path) -> None:
    """The RUN that unpacks is new."""
    (context / "Dockerfile").write_text(
        f"{BASE}RUN --mount=type=bind,target=/ctx mkdir /out && tar -xf /ctx/files.tar -C /out && echo {nonce()} > /n\n")


def text_layer(context: Path) -> None:
    """A layer of text that compresses about as source code does."""
    words = [uuid.UUID(int=n * 0x9E3779B97F4A7C15F39CC0605CEDC835 % (1 << 128)).hex[:7] for n in range(4096)]
    line = 0
    with open(context / "text", "w") as out:
        out.write(nonce() + "\n")
        while out.tell() < LAYER_BYTES:
            picked = (words[(line * 31 + n * n * 7 + (line >> 5)) % 4096] for n in range(2048))
            out.write(" ".join(picked) + "\n")
            line += 1
    (context / "Dockerfile").write_text(BASE + "COPY text /text\n")


def new_first_line(context: Path) -> None:
    """Changes the layer's first line."""
    with open(context / "text", "r+b") as out:
        out.write(nonce().encode())


GROUPS = (
    Group(empty, (Phase("tiny_cold", "busybox, 2 RUN + 1 COPY, cold", 0.15, tiny),
                  Phase("tiny_warm", "the same, unchanged", 0.5, unchanged))),
    Group(sixth_changed, (Phase("mid_change", "12 RUN, the sixth changed", 0.15, sixth_changed),), primed=True),
    Group(small_files, (Phase("ctx50k_cold", "COPY of 50,000 files of 64 B, cold", 0.25, small_files),
                        Phase("ctx50k_warm", "the same, unchanged", 0.5, unchanged),
                        Phase("ctx50k_one", "the same, one file changed", 0.2, one_small_file)), heavy=True),
    Group(big_file, (Phase("copy_1gib", "COPY of one 1 GiB file, cold", 0.5, big_file_in_place),), heavy=True),
    Group(empty, (Phase("stages_20", "20 stages of `sleep 0.5`, joined", 0.7, stages),)),
    Group(empty, (Phase("layers_100_cold", "100 RUN echo, cold", 0.1, many_steps),
                  Phase("layers_100_warm", "the same, unchanged", 0.4, unchanged)), heavy=True),
    Group(archive_of_files, (Phase("unpack_30k", "RUN that unpacks 30,000 files", 0.5, unpack),)),
    Group(text_layer, (Phase("archive_128m", "128 MiB layer, to an archive as of `docker save`", 0.5, new_first_line, "archive"),
                       Phase("oci_128m", "128 MiB layer, to an OCI archive, compressed", 0.5, new_first_line, "oci"),
                       Phase("push_128m", "128 MiB layer, pushed to a registry", 0.5, new_first_line, "push")), heavy=True),
)
