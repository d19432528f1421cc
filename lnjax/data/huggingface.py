"""Text of a Hugging Face dataset, by name or from a local directory (optional extra `hf`)."""

import os
from typing import Any

from lnjax.data.config import unknown_name
from lnjax.data.corpora import Corpus


def read_huggingface(path: str, split: str, text_field: str, cache_dir: str = "") -> Corpus:
    """The rows of one text column, each ended by a newline, concatenated in order.

    path: a directory written by `save_to_disk`, a local directory of files that `load_dataset`
        understands (.jsonl, .txt, .parquet, ...), a dataset name, or "name:configuration".
    cache_dir: where `datasets` keeps what it prepares; "" is its own default.

    The text is held in memory; write token shards for a corpus that does not fit.
    Raises ImportError without the `datasets` library, FileNotFoundError for a dataset that is not
    there, ValueError for an unknown split or column, a column without text, or an empty dataset.
    """
    rows = _open(path, split, cache_dir)
    if text_field not in rows.column_names:
        problem = unknown_name("data.text_field", text_field, rows.column_names)
        raise ValueError(f"{problem} These are the columns of {path!r}.")
    parts = []
    for index, text in enumerate(rows[text_field]):
        if not isinstance(text, str):
            raise ValueError(
                f"row {index} of column {text_field!r} of {path!r} is {type(text).__name__}, not "
                f"text: set data.text_field to a text column ({', '.join(rows.column_names)})."
            )
        parts.append(text if text.endswith("\n") else text + "\n")
    # Some rows of crawled text hold lone surrogates, which UTF-8 cannot express.
    data = "".join(parts).encode("utf-8", errors="replace")
    if not data.strip():
        raise ValueError(
            f"the corpus is empty: split {split!r} of {path!r} has {len(parts)} row(s) without "
            f"text in column {text_field!r}. Choose another data.split or data.text_field."
        )
    details = {"split": split, "text_field": text_field}
    if not os.path.exists(os.path.expanduser(path)):
        details["dataset"] = path
    return Corpus(data, files=len(parts), details=details)


def _open(path: str, split: str, cache_dir: str) -> Any:
    """The rows of `split` as a `datasets.Dataset`."""
    try:
        import datasets
    except ImportError as error:
        raise ImportError(
            "data.source='huggingface' needs the datasets library: "
            'install it with  pip install "lnjax[hf]"'
        ) from error

    local = os.path.expanduser(path)
    if os.path.isfile(local):
        raise ValueError(
            f"data.path={path!r} is a file: name the folder that holds it, or use "
            "data.source='text' for a plain text file."
        )
    if os.path.isdir(local) and _was_saved_to_disk(local):
        return _choose_split(datasets.load_from_disk(local), split, path)

    is_local = os.path.isdir(local)
    name, _, configuration = (local, "", "") if is_local else path.partition(":")
    cache = os.path.join(os.path.expanduser(cache_dir), "huggingface") if cache_dir else None
    try:
        loaded = datasets.load_dataset(name, configuration or None, cache_dir=cache)
    except (OSError, ValueError, datasets.exceptions.DatasetsError) as error:
        if is_local:
            raise ValueError(
                f"the folder data.path={path!r} cannot be loaded as a dataset: {error} It must "
                "hold .jsonl, .txt, .csv or .parquet files with data, or come from save_to_disk."
            ) from error
        if isinstance(error, FileNotFoundError | ConnectionError):
            raise FileNotFoundError(
                f"data.path={path!r} is not a local directory, and no dataset of that name can be "
                f"found or reached: correct it, or check the network. ({error})"
            ) from error
        raise ValueError(
            f"the dataset data.path={path!r} cannot be loaded: {error} "
            "Name its configuration, if it has several, as 'name:configuration'."
        ) from error
    return _choose_split(loaded, split, path)


def _was_saved_to_disk(folder: str) -> bool:
    single = all(
        os.path.isfile(os.path.join(folder, name)) for name in ("state.json", "dataset_info.json")
    )
    return single or os.path.isfile(os.path.join(folder, "dataset_dict.json"))


def _choose_split(loaded: Any, split: str, path: str) -> Any:
    """One split; a dataset saved without splits is accepted unless it says it is another one."""
    if isinstance(loaded, dict):
        if split not in loaded:
            problem = unknown_name("data.split", split, loaded)
            raise ValueError(f"{problem} These are the splits of {path!r}.")
        return loaded[split]
    if loaded.split is not None and str(loaded.split) != split:
        raise ValueError(
            f"data.split={split!r}, but {path!r} was saved from split {str(loaded.split)!r} alone: "
            f"set data.split={str(loaded.split)!r}, or save the whole dataset."
        )
    return loaded
