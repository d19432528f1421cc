"""Hugging Face datasets from local directories, and the errors around them."""

import json
import sys

import pytest

from lnjax.data import open_dataset

ROWS = [f"row number {index}" for index in range(200)] + ["ends with a newline\n", "é"]
EXPECTED = "".join(row if row.endswith("\n") else row + "\n" for row in ROWS)


def open_folder(folder, **fields):
    return open_dataset(
        {
            "source": "huggingface",
            "path": str(folder),
            "sequence_length": 32,
            "cache_dir": str(folder.parent / "cache"),
            **fields,
        }
    )


def text_of(dataset):
    return dataset.decode(dataset.stream.read(0, len(dataset.stream)))


@pytest.fixture(scope="module")
def datasets():
    library = pytest.importorskip("datasets")
    library.disable_progress_bars()
    return library


@pytest.fixture
def rows(datasets):
    return datasets.Dataset.from_dict({"text": ROWS, "label": list(range(len(ROWS)))})


def test_a_saved_dataset(rows, tmp_path):
    rows.save_to_disk(tmp_path / "saved")
    dataset = open_folder(tmp_path / "saved")
    assert text_of(dataset) == EXPECTED
    assert dataset.fingerprint["bytes"] == len(EXPECTED.encode())
    assert dataset.fingerprint["files"] == len(ROWS)
    assert dataset.fingerprint["split"] == "train"
    assert str(tmp_path) not in json.dumps(dataset.fingerprint)
    assert dataset.batch(0, 0)["tokens"].shape == (16, 33)


def test_a_saved_dataset_with_splits(datasets, rows, tmp_path):
    splits = {"train": rows, "validation": rows.select(range(100))}
    datasets.DatasetDict(splits).save_to_disk(tmp_path / "saved")
    assert text_of(open_folder(tmp_path / "saved")) == EXPECTED
    shorter = text_of(open_folder(tmp_path / "saved", split="validation", held_out=0.2))
    assert shorter == "".join(f"row number {index}\n" for index in range(100))
    with pytest.raises(ValueError, match="Did you mean 'validation'.*Known: train, validation"):
        open_folder(tmp_path / "saved", split="valid")


def test_a_dataset_saved_from_another_split(datasets, tmp_path):
    one = datasets.Dataset.from_dict({"text": ROWS}, split="test")
    one.save_to_disk(tmp_path / "saved")
    with pytest.raises(ValueError, match="set data.split='test'"):
        open_folder(tmp_path / "saved")
    assert text_of(open_folder(tmp_path / "saved", split="test")) == EXPECTED


@pytest.mark.parametrize("kind", ["jsonl", "parquet", "txt"])
def test_a_folder_of_files(rows, tmp_path, kind):
    folder = tmp_path / "files"
    folder.mkdir()
    if kind == "jsonl":
        rows.to_json(folder / "a.jsonl")
    elif kind == "parquet":
        rows.to_parquet(folder / "a.parquet")
    else:
        (folder / "a.txt").write_text(EXPECTED)
    assert text_of(open_folder(folder)) == EXPECTED


def test_the_column(rows, tmp_path):
    rows.rename_column("text", "content").save_to_disk(tmp_path / "saved")
    with pytest.raises(ValueError, match="unknown data.text_field 'text'.*content, label"):
        open_folder(tmp_path / "saved")
    with pytest.raises(ValueError, match="row 0 of column 'label'.*is int, not text"):
        open_folder(tmp_path / "saved", text_field="label")
    assert text_of(open_folder(tmp_path / "saved", text_field="content")) == EXPECTED


def test_empty_and_missing_datasets(datasets, tmp_path):
    datasets.Dataset.from_dict({"text": [""] * 3}).save_to_disk(tmp_path / "blank")
    with pytest.raises(ValueError, match=r"corpus is empty.*3 row\(s\) without text"):
        open_folder(tmp_path / "blank")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="cannot be loaded as a dataset.*must hold .jsonl"):
        open_folder(tmp_path / "empty")
    (tmp_path / "file.txt").write_text("text")
    with pytest.raises(ValueError, match="is a file.*data.source='text'"):
        open_folder(tmp_path / "file.txt")
    with pytest.raises(FileNotFoundError, match="not a local directory, and no dataset"):
        open_folder(tmp_path / "missing")


def test_a_name_with_a_configuration(datasets, rows, monkeypatch, tmp_path):
    asked = []

    def load_dataset(name, configuration, cache_dir):
        asked.append((name, configuration))
        if configuration is None:
            raise ValueError("Config name is missing.")
        return datasets.DatasetDict({"train": rows})

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    fields = {"source": "huggingface", "cache_dir": str(tmp_path)}
    dataset = open_dataset({**fields, "path": "group/name:part"})
    assert text_of(dataset) == EXPECTED
    assert dataset.fingerprint["dataset"] == "group/name:part"
    with pytest.raises(ValueError, match="Config name is missing.*'name:configuration'"):
        open_dataset({**fields, "path": "group/name"})
    assert asked == [("group/name", "part"), ("group/name", None)]


def test_without_the_library(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(ImportError, match=r'pip install "lnjax\[hf\]"'):
        open_folder(tmp_path)
