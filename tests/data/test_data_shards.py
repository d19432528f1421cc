"""Token shards: the two formats, written here byte by byte, and what is refused."""

import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import lnjax.data.opening
from lnjax.data import open_dataset, write_shard
from lnjax.data.shards import hash_shards, inspect_shard
from lnjax.data.streams import TokenStream


def header(magic, version, tokens):
    return struct.pack("<256i", magic, version, tokens, *[0] * 253)


def shard(tmp_path, contents, name="a.bin"):
    path = tmp_path / name
    path.write_bytes(contents)
    return path


def test_plain_uint16(tmp_path):
    found = inspect_shard(shard(tmp_path, struct.pack("<4H", 1, 2, 65535, 258)))
    assert found.open().tolist() == [1, 2, 65535, 258]
    assert isinstance(found.open(), np.memmap)


def test_plain_shards_longer_than_a_header(tmp_path):
    tokens = np.random.default_rng(0).integers(0, 50257, size=5000)
    found = inspect_shard(shard(tmp_path, tokens.astype("<u2").tobytes()))
    np.testing.assert_array_equal(found.open(), tokens)


def test_gpt2_header(tmp_path):
    contents = header(20240520, 1, 3) + struct.pack("<3H", 50256, 7, 0)
    assert inspect_shard(shard(tmp_path, contents)).open().tolist() == [50256, 7, 0]


def test_llama3_header(tmp_path):
    contents = header(20240801, 7, 2) + struct.pack("<2I", 128000, 7)
    assert inspect_shard(shard(tmp_path, contents)).open().tolist() == [128000, 7]


@pytest.mark.parametrize(
    ("contents", "message"),
    [
        (b"", "is empty"),
        (b"\1\2\3", "3 bytes, an odd number"),
        (header(20240520, 1, 3) + b"\0" * 4, "is truncated.*announces 3 uint16.*1030.*1028"),
        (header(20240801, 7, 3) + b"\0" * 6, "is truncated.*1036.*1030"),
        (header(20240520, 1, 3) + b"\0" * 8, "after its last token"),
        (header(20240520, 1, 3)[:600], "is truncated.*header of 1024"),
        (header(20240520, 1, 0), "announces 0 tokens"),
        (header(20240520, 7, 2) + b"\0" * 4, "version 7.*version 1"),
        (header(20240801, 1, 2) + b"\0" * 8, "version 1.*version 7"),
        (header(20250101, 1, 2) + b"\0" * 4, "magic number 20250101.*20240520"),
        (header(20240522, 1, 2) + b"\0" * 4, "multiple-choice"),
    ],
)
def test_damaged_shards_are_refused(tmp_path, contents, message):
    with pytest.raises(ValueError, match=f"a.bin.*{message}"):
        inspect_shard(shard(tmp_path, contents))


@pytest.mark.parametrize("format", ["plain", "gpt2", "llama3"])
def test_written_shards_are_read_back(tmp_path, format):
    tokens = np.random.default_rng(0).integers(0, 60_000, size=3000)
    write_shard(tmp_path / "a.bin", tokens, format)
    np.testing.assert_array_equal(inspect_shard(tmp_path / "a.bin").open(), tokens)


def test_the_writer_writes_the_published_header(tmp_path):
    write_shard(tmp_path / "a.bin", np.array([5, 6]), "llama3")
    expected = header(20240801, 7, 2) + struct.pack("<2I", 5, 6)
    assert (tmp_path / "a.bin").read_bytes() == expected


@pytest.mark.parametrize(
    ("tokens", "format", "message"),
    [([70_000], "gpt2", "format='llama3'"), ([-1], "plain", "fit"), ([], "gpt2", "no tokens"),
     ([1], "gpt3", "Known: plain")],
)  # fmt: skip
def test_the_writer_refuses(tmp_path, tokens, format, message):
    with pytest.raises(ValueError, match=message):
        write_shard(tmp_path / "a.bin", np.array(tokens, dtype=np.int64), format)


@given(st.lists(st.integers(0, 7), max_size=5), st.data())
def test_a_stream_reads_like_the_concatenation(sizes, data):
    whole = np.arange(sum(sizes), dtype=np.uint16)
    parts = np.split(whole, np.cumsum(sizes)[:-1]) if sizes else []
    stream = TokenStream(parts, ["x"] * len(parts))
    assert len(stream) == len(whole)
    start = data.draw(st.integers(0, len(whole)))
    length = data.draw(st.integers(0, len(whole) - start))
    np.testing.assert_array_equal(stream.read(start, length), whole[start : start + length])
    with pytest.raises(IndexError):
        stream.read(start, len(whole) - start + 1)
    with pytest.raises(IndexError):
        stream.read(-1, 1)


def dataset_of(tmp_path, **fields):
    return open_dataset(
        {"source": "shards", "path": str(tmp_path / "*.bin"), "sequence_length": 9, **fields}
    )


@pytest.fixture
def two_shards(tmp_path):
    write_shard(tmp_path / "a.bin", np.arange(500) % 90, "plain")
    write_shard(tmp_path / "b.bin", np.append(np.arange(499) % 90, 99), "gpt2")
    return tmp_path


def test_vocabulary_from_the_largest_token(two_shards):
    dataset = dataset_of(two_shards)
    assert dataset.vocab_size == 100
    assert dataset.fingerprint["tokens"] == 1000
    assert dataset.fingerprint["files"] == 2
    assert dataset.fingerprint["bytes"] == 1000 + 1024 + 1000
    assert dataset.entropy is None
    with pytest.raises(ValueError, match="no text"):
        dataset.decode(dataset.batch(0, 0)["tokens"][0])


@pytest.mark.parametrize("complete", [True, False])
def test_a_token_outside_the_vocabulary_is_named(two_shards, monkeypatch, complete):
    """Found when the shards are opened or, with shards too large for that, when it is read."""
    if not complete:
        monkeypatch.setattr(lnjax.data.opening, "COMPLETE_READ_BYTES", 0)
    with pytest.raises(ValueError, match=r"token 99 at position 499 of shard .*b\.bin.*99: raise"):
        dataset = dataset_of(two_shards, vocab_size=99)
        assert not complete
        for k in range(8):
            dataset.evaluation_batch(k)
    assert dataset_of(two_shards, vocab_size=100).vocab_size == 100


def test_damaged_uint32_tokens(tmp_path):
    write_shard(tmp_path / "a.bin", np.array([2**32 - 1] * 500), "llama3")
    with pytest.raises(ValueError, match="int32"):
        dataset_of(tmp_path)
    with pytest.raises(ValueError, match="token 4294967295 at position 0"):
        dataset_of(tmp_path, vocab_size=2**31 - 1)


@pytest.mark.parametrize("complete", [True, False])
def test_the_fingerprint_follows_the_contents(two_shards, complete):
    shards = [inspect_shard(path) for path in sorted(two_shards.glob("*.bin"))]
    before = hash_shards(shards, complete)
    assert hash_shards(shards, complete) == before
    write_shard(two_shards / "b.bin", np.append(98, np.arange(499) % 90), "gpt2")
    assert hash_shards(shards, complete) != before


def test_missing_shards(tmp_path):
    with pytest.raises(FileNotFoundError, match="matches no file"):
        dataset_of(tmp_path)
