"""Text corpora: which files are read, in which order, and what is refused."""

import ast
import hashlib
import json
import time
from pathlib import Path

import pytest

import lnjax.data
from lnjax.data import open_dataset, read_python_stdlib, read_text
from lnjax.data.corpora import standard_library_files

STDLIB = [
    "abc.py",
    "json/__init__.py",
    "json-tool.py",
    "test/test_abc.py",
    "lib2to3/tests/data.py",
    "idlelib/idle_test/test_run.py",
    "site-packages/numpy/core.py",
    "dist-packages/apt.py",
    "__pycache__/abc.py",
    "_sysconfigdata__linux.py",
    "config-3.11-x86_64/python-config.py",
    "sitecustomize.py",
    "README.txt",
]


@pytest.fixture
def installation(tmp_path):
    for name in STDLIB:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"# {name}\n")
    return tmp_path


def test_standard_library_leaves_out_tests_packages_and_machine_records(installation):
    names = [
        path.relative_to(installation).as_posix() for path in standard_library_files(installation)
    ]
    assert names == ["abc.py", "json-tool.py", "json/__init__.py"]  # sorted as text


def test_standard_library_without_source_names_the_remedy(tmp_path):
    with pytest.raises(FileNotFoundError, match="data.source='text'"):
        read_python_stdlib(tmp_path)


def test_default_corpus_is_this_machines_standard_library():
    start = time.perf_counter()
    dataset = open_dataset({})
    seconds = time.perf_counter() - start
    assert dataset.fingerprint["bytes"] > 5_000_000
    assert dataset.fingerprint["bytes"] == dataset.fingerprint["tokens"] == len(dataset.stream)
    assert len(dataset.fingerprint["sha256"]) == 64
    assert json.loads(json.dumps(dataset.fingerprint)) == dataset.fingerprint
    assert open_dataset({}).fingerprint == dataset.fingerprint
    text = dataset.decode(dataset.stream.read(0, len(dataset.stream)))
    assert "def dataclass(" in text and "class TestCase" in text
    assert seconds < 10, "reading the corpus should take well under a second"


def test_text_is_the_sorted_concatenation(tmp_path):
    (tmp_path / "b.txt").write_bytes(b"second")
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "deep.txt").write_bytes(b"first\xff")
    (tmp_path / "ignored.md").write_bytes(b"no")
    corpus = read_text(str(tmp_path / "**" / "*.txt"))
    assert corpus.data == b"first\xffsecond"
    assert corpus.files == 2
    assert corpus.sha256 == hashlib.sha256(b"first\xffsecond").hexdigest()


def test_a_literal_name_with_glob_characters(tmp_path):
    (tmp_path / "a[1].txt").write_bytes(b"text")
    assert read_text(str(tmp_path / "a[1].txt")).data == b"text"


def test_missing_and_empty_corpora(tmp_path):
    with pytest.raises(FileNotFoundError, match="matches no file"):
        read_text(str(tmp_path / "*.txt"))
    with pytest.raises(ValueError, match=r"is a folder.*\*\*"):
        read_text(str(tmp_path))
    (tmp_path / "empty.txt").touch()
    with pytest.raises(ValueError, match=r"corpus is empty.*1 file\(s\)"):
        read_text(str(tmp_path / "*.txt"))


def test_the_package_needs_neither_jax_nor_eager_heavy_imports():
    """Heavy libraries are imported inside functions only."""
    heavy = {"jax", "jaxlib", "flax", "tokenizers", "datasets", "pandas", "xarray"}
    files = sorted(Path(lnjax.data.__file__).parent.glob("*.py"))
    assert len(files) > 5
    for file in files:
        tree = ast.parse(file.read_text())
        for node in tree.body:
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                names = [node.module]
            else:
                continue
            assert not heavy & {name.split(".")[0] for name in names}, file.name
