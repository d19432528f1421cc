"""Text corpora as bytes: the Python standard library and the user's own text files."""

import glob
import hashlib
import os
import platform
import sysconfig
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

# Test suites and installed packages are not library code; they also vary most between machines.
EXCLUDED_FOLDERS = frozenset(
    ("test", "tests", "idle_test", "site-packages", "dist-packages", "__pycache__")
)
# Written when Python was built, or by the machine's owner: they differ between equal Pythons.
EXCLUDED_PREFIXES = ("config-", "_sysconfigdata", "sitecustomize", "usercustomize")


@dataclass(frozen=True)
class Corpus:
    """A text corpus held in memory.

    data: the bytes, the concatenation of the files (so sha256 is that of `cat files`).
    files: how many files (or dataset rows) it was read from.
    details: what else identifies it, JSON-able; becomes part of the fingerprint.
    """

    data: bytes
    files: int
    details: dict = field(default_factory=dict)

    @cached_property
    def sha256(self) -> str:
        return hashlib.sha256(self.data).hexdigest()


def standard_library_files(root: Path) -> list[Path]:
    """The `*.py` files below `root` without test suites and installed packages.

    Sorted by their path relative to `root` with "/" as separator, so that equal installations
    give equal corpora wherever they live.
    """
    found = []
    for folder, folders, names in os.walk(root):
        folders[:] = [
            name
            for name in folders
            if name not in EXCLUDED_FOLDERS and not name.startswith(EXCLUDED_PREFIXES)
        ]
        found += [
            Path(folder, name)
            for name in names
            if name.endswith(".py") and not name.startswith(EXCLUDED_PREFIXES)
        ]
    return sorted(found, key=lambda path: path.relative_to(root).as_posix())


def read_python_stdlib(root: Path | None = None) -> Corpus:
    """The source code of this machine's Python standard library, about 12 MB.

    Raises FileNotFoundError where the library's source is absent (zipped or stripped Pythons).
    """
    root = Path(sysconfig.get_path("stdlib")) if root is None else root
    files = standard_library_files(root)
    if not files:
        raise FileNotFoundError(
            f"the Python standard library's source code is not at {root} (this Python may ship it "
            "zipped or compiled): use data.source='text' with data.path set to a glob of your own "
            "text files, or a synthetic source ('copy', 'markov')."
        )
    return _concatenate(files, str(root), {"python": platform.python_version()})


def matching_files(pattern: str) -> list[Path]:
    """The files that match the glob `pattern` (`**` is recursive, `~` is the home folder), sorted.

    Raises FileNotFoundError if there is none, ValueError if the pattern names a folder.
    """
    pattern = os.path.expanduser(pattern)
    if os.path.isfile(pattern):  # a literal name, even one that holds glob characters
        return [Path(pattern)]
    if os.path.isdir(pattern):
        raise ValueError(
            f"data.path={pattern!r} is a folder: write a glob of the files in it, such as "
            f"{os.path.join(pattern, '**', '*')!r}."
        )
    files = sorted(
        (Path(name) for name in glob.glob(pattern, recursive=True) if os.path.isfile(name)),
        key=lambda path: path.as_posix(),
    )
    if not files:
        raise FileNotFoundError(
            f"data.path={pattern!r} matches no file (looked from {os.getcwd()!r}): correct the "
            "path or the glob; '**' goes through folders of any depth."
        )
    return files


def read_text(pattern: str) -> Corpus:
    """The text files that match the glob `pattern`, concatenated in sorted order.

    Raises FileNotFoundError if no file matches, ValueError if all matching files are empty.
    """
    return _concatenate(matching_files(pattern), f"data.path={pattern!r}", {})


def _concatenate(files: Iterable[Path], origin: str, details: dict) -> Corpus:
    parts = [path.read_bytes() for path in files]
    data = b"".join(parts)
    if not data:
        raise ValueError(
            f"the corpus is empty: {origin} gives {len(parts)} file(s), all of zero bytes. "
            "Point data.path to files with text."
        )
    return Corpus(data, files=len(parts), details=details)
