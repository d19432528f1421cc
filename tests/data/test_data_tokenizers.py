"""Tokenizers lose nothing; BPE learns from the training part alone and is kept on disk."""

import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import lnjax.data.token_cache
from lnjax.data import BPETokenizer, ByteTokenizer, open_dataset
from lnjax.data.tokenizers import byte_characters

TEXT = "the cat sat on the mat; the hat of the cat — où est le chat? 猫は😀\n" * 40
BPE = BPETokenizer.train([TEXT.encode(), b"def f(x):\n    return x\n" * 9], 300)
BOTH = pytest.mark.parametrize("tokenizer", [ByteTokenizer(), BPE], ids=["bytes", "bpe"])


@BOTH
@given(text=st.text(st.characters(exclude_categories=["Cs"]), max_size=80))
def test_text_round_trip(tokenizer, text):
    assert tokenizer.decode(tokenizer.encode(text.encode())) == text


@BOTH
@given(data=st.binary(max_size=80))
def test_byte_round_trip(tokenizer, data):
    tokens = tokenizer.encode(data)
    assert tokenizer.decode_bytes(tokens) == data
    assert len(tokens) == 0 or tokens.max() < tokenizer.vocab_size


@BOTH
def test_text_of_several_blocks_and_invalid_bytes(tokenizer):
    data = (TEXT * 60).encode() + b"\xff\xfe tail \xe2\x82" + b"x" * 200_000 + "é".encode()[:1]
    assert tokenizer.decode_bytes(tokenizer.encode(data)) == data
    assert "\ufffd tail \ufffd" in tokenizer.decode(tokenizer.encode(data))


def test_text_that_looks_like_special_tokens():
    assert BPE.decode(BPE.encode(b"<|endoftext|>[UNK]<s>")) == "<|endoftext|>[UNK]<s>"


def test_bpe_compresses_what_it_has_learnt():
    assert BPE.vocab_size == 300
    assert len(BPE.encode(TEXT.encode())) < 0.6 * len(TEXT.encode())
    assert BPE.encode(b"abc").dtype == np.uint16


def test_bpe_training_is_deterministic():
    again = BPETokenizer.train([TEXT.encode(), b"def f(x):\n    return x\n" * 9], 300)
    assert again.to_json() == BPE.to_json()


def test_byte_characters_are_the_librarys():
    import tokenizers

    characters = byte_characters()
    assert sorted(characters) == sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet())
    assert characters[ord("a")] == "a" and characters[ord(" ")] == "Ġ" and characters[10] == "Ċ"


@BOTH
def test_decode_refuses_what_has_no_text(tokenizer):
    with pytest.raises(ValueError, match="token 300"):
        tokenizer.decode(np.array([65, 300]))
    with pytest.raises(ValueError, match="token -1"):
        tokenizer.decode(np.array([-1]))


def test_byte_vocabulary_may_be_padded(tmp_path):
    (tmp_path / "a.txt").write_text("text " * 1000)
    fields = {"source": "text", "path": str(tmp_path / "a.txt")}
    assert open_dataset(fields).vocab_size == 256
    assert open_dataset({**fields, "vocab_size": 384}).vocab_size == 384
    with pytest.raises(ValueError, match="256"):
        ByteTokenizer(255)


def test_a_vocabulary_that_the_text_cannot_fill():
    with pytest.raises(ValueError, match="at most 25[0-9]"):
        BPETokenizer.train([b"aabb"], 1000)


@pytest.fixture
def fields(tmp_path):
    """A corpus of which the last 4000 of 10000 bytes are a word that occurs nowhere else.

    It is more frequent than any other word, so that a BPE that saw it would learn it first.
    """
    (tmp_path / "a.txt").write_text("alpha beta gamma deltas " * 250 + "zyzzyva " * 500)
    return {
        "source": "text",
        "path": str(tmp_path / "a.txt"),
        "tokenizer": "bpe",
        "vocab_size": 270,
        "sequence_length": 16,
        "held_out": 0.4,
        "cache_dir": str(tmp_path / "cache"),
    }


def test_bpe_learns_from_the_training_part_only(fields):
    dataset = open_dataset(fields)
    start, stop = dataset.split.held_out[0]
    held_out = dataset.decode(dataset.stream.read(start, stop - start))
    assert held_out == "zyzzyva " * 500
    assert not any(b"zy" in token for token in dataset.tokenizer._token_bytes)
    assert any(b"alpha" in token for token in dataset.tokenizer._token_bytes)


def test_bpe_split_tiles_the_corpus(fields):
    dataset = open_dataset(fields)
    spans = sorted(dataset.split.training + dataset.split.held_out)
    pieces = [dataset.tokenizer.decode(dataset.stream.read(a, b - a)) for a, b in spans]
    with open(fields["path"]) as file:
        assert "".join(pieces) == file.read()
    assert spans[0][0] == 0 and spans[-1][1] == len(dataset.stream)
    # The border is where it is in bytes, so the text that is held out is the same as with bytes.
    bytes_ = open_dataset({**fields, "tokenizer": "bytes", "vocab_size": 0})
    a, b = bytes_.split.held_out[0]
    assert bytes_.decode(bytes_.stream.read(a, b - a)) == pieces[-1]
    assert dataset.fingerprint["sha256"] == bytes_.fingerprint["sha256"]


def test_the_cache_is_used_and_gives_the_same(fields, monkeypatch, tmp_path):
    first = open_dataset(fields)

    def fail(*_):
        raise AssertionError("the cache is not used")

    monkeypatch.setattr(BPETokenizer, "train", fail)
    monkeypatch.setattr(BPETokenizer, "encode", fail)
    second = open_dataset(fields)
    assert second.fingerprint == first.fingerprint
    assert len(first.fingerprint["tokenizer_sha256"]) == 64
    np.testing.assert_array_equal(first.batch(0, 3)["tokens"], second.batch(0, 3)["tokens"])
    assert isinstance(second.stream.parts[0], np.memmap)
    with pytest.raises(
        AssertionError, match="not used"
    ):  # another corpus has another key, so it is trained
        (tmp_path / "b.txt").write_text("alpha beta gamma deltaz " * 250 + "zyzzyva " * 500)
        open_dataset({**fields, "path": str(tmp_path / "b.txt")})
    (folder,) = (tmp_path / "cache").iterdir()
    names = {path.name for path in folder.iterdir()}  # and no temporary files
    assert names == {"tokenizer.json", "lengths.json", "tokens.npy"}


def test_a_failed_write_leaves_nothing(fields, monkeypatch, tmp_path):
    def fail(*_):
        raise OSError("disk full")

    monkeypatch.setattr(lnjax.data.token_cache.os, "replace", fail)
    with pytest.raises(OSError, match=r"disk full.*data\.cache_dir"):
        open_dataset(fields)
    assert [path for path in (tmp_path / "cache").rglob("*") if path.is_file()] == []


@pytest.mark.parametrize("name", ["tokenizer.json", "tokens.npy", "lengths.json"])
def test_a_damaged_cache_names_the_remedy(fields, tmp_path, name):
    open_dataset(fields)
    (file,) = (tmp_path / "cache").rglob(name)
    file.write_bytes(file.read_bytes()[:-7])
    with pytest.raises(ValueError, match="delete"):
        open_dataset(fields)


def test_without_the_library(fields, monkeypatch):
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    with pytest.raises(ImportError, match="data.tokenizer='bytes'"):
        open_dataset(fields)
