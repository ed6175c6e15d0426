# SPDX-License-Identifier: Apache-2.0
"""Text that comes with every Python: help topics and library sources, split by document.

Another Python has another text, so a corpus is named by its SHA-256. Nothing is fetched.
"""

from __future__ import annotations

import hashlib
import json
import re
import sysconfig
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

#: one document in this many is held out
HELD_OUT_EVERY = 10
#: folders that are not the library's own text: other packages, tests, character tables, applications
#: that some installations lack
LEFT_OUT = {
    "site-packages", "dist-packages", "test", "tests", "idle_test", "encodings", "idlelib", "lib2to3",
    "turtledemo", "pydoc_data", "__phello__", "__pycache__",
}  # fmt: skip
#: files and folders whose text depends on the machine on which Python was built
BUILD_PREFIXES = ("_sysconfigdata", "_sysconfig_vars", "config-")
NOTICE = re.compile("copyright|licen[cs]e|jaraco", re.IGNORECASE)


@dataclass(frozen=True)
class Document:
    """One text.

    Attributes:
        name: path below the standard library, or ``pydoc_data/topics.py#TOPIC``.
        text: its content, lines ended by a line feed.
    """

    name: str
    text: str

    @property
    def data(self) -> bytes:
        """The text as UTF-8; figures per byte count these."""
        return self.text.encode("utf-8")

    @property
    def held_out(self) -> bool:
        """Whether nothing may learn from it; depends on the name alone."""
        digest = hashlib.sha256(self.name.encode("utf-8")).digest()
        return int.from_bytes(digest[:8], "big") % HELD_OUT_EVERY == 0


def topics() -> Iterator[Document]:
    """The help topics of the running Python, which are prose, in the order of their names."""
    from pydoc_data.topics import topics as found

    for name in sorted(found):
        yield Document(f"pydoc_data/topics.py#{name}", found[name])


def modules(root: Path) -> Iterator[Document]:
    """Python files below a folder in the order of their paths, without what ``LEFT_OUT`` names."""
    for path in sorted(root.rglob("*.py"), key=lambda path: path.relative_to(root).as_posix()):
        inside = path.relative_to(root)
        if LEFT_OUT & set(inside.parts) or any(part.startswith(BUILD_PREFIXES) for part in inside.parts):
            continue
        try:
            text = path.read_bytes().decode("utf-8")
        except UnicodeDecodeError:
            continue
        if text.strip():
            yield Document(inside.as_posix(), text.replace("\r\n", "\n"))


def documents() -> list[Document]:
    """Everything of the running Python: topics first, then modules."""
    return [*topics(), *modules(Path(sysconfig.get_paths()["stdlib"]))]


def split(texts: Sequence[Document]) -> tuple[list[Document], list[Document]]:
    """(to train on, held out), each in the order given."""
    return [d for d in texts if not d.held_out], [d for d in texts if d.held_out]


def sha256(texts: Sequence[Document]) -> str:
    """Digest of names and texts in their order."""
    digest = hashlib.sha256()
    for document in texts:
        digest.update(document.name.encode("utf-8") + b"\0" + document.data + b"\0")
    return digest.hexdigest()


def excerpt(texts: Sequence[Document], size: int, most: int) -> list[Document]:
    """Beginnings of documents, prose and code by turns, together at most ``size`` bytes.

    Texts that name a copyright, a licence or another project that they are from are left out, so that one
    licence covers the excerpt.

    Args:
        size: bytes in all.
        most: bytes of one document; it is cut at the end of a line.
    """
    free = [d for d in texts if not NOTICE.search(d.text)]
    prose = [d for d in free if "#" in d.name]
    code = [d for d in free if "#" not in d.name]
    chosen: list[Document] = []
    for index in range(max(len(prose), len(code))):
        for kind in (prose, code):
            if index < len(kind):
                cut = Document(kind[index].name, first_lines(kind[index].text, most))
                if cut.text and sum(len(d.data) for d in chosen) + len(cut.data) <= size:
                    chosen.append(cut)
    return chosen


def first_lines(text: str, most: int) -> str:
    """As many whole lines as fit in ``most`` bytes."""
    kept, size = [], 0
    for line in text.splitlines(keepends=True):
        size += len(line.encode("utf-8"))
        if size > most:
            break
        kept.append(line)
    return "".join(kept)


def write(path: Path, texts: Sequence[Document]) -> None:
    """One JSON object a line."""
    lines = [json.dumps({"name": d.name, "text": d.text}, ensure_ascii=False) + "\n" for d in texts]
    path.write_text("".join(lines), encoding="utf-8")


def read(path: Path) -> list[Document]:
    """What ``write`` wrote."""
    # not splitlines(): a JSON string may hold a form feed or U+2028 as it is
    lines = path.read_text(encoding="utf-8").split("\n")
    return [Document(**json.loads(line)) for line in lines if line]
