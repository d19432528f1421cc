"""The held-out part never meets the training part, and windows never leave their span."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lnjax.data.splits import Windows, split_positions, split_text

FRACTIONS = st.floats(0.0, 0.99)


def positions(spans):
    return [position for start, stop in spans for position in range(start, stop)]


@given(st.integers(0, 5000), FRACTIONS)
def test_parts_tile_the_corpus_once(size, held_out):
    split = split_positions(size, held_out)
    assert sorted(positions(split.training) + positions(split.held_out)) == list(range(size))
    assert abs(len(positions(split.held_out)) - size * held_out) <= 1


def test_large_corpora_have_sixteen_spread_chunks():
    size = 12_000_000
    split = split_positions(size, 0.05)
    assert len(split.held_out) == 16
    held_out = sum(stop - start for start, stop in split.held_out)
    training = sum(stop - start for start, stop in split.training)
    assert held_out == pytest.approx(0.05 * size, abs=16)
    assert held_out + training == size
    for index, (start, stop) in enumerate(split.held_out):
        assert index * size // 16 < start < stop == (index + 1) * size // 16


def test_small_corpora_hold_out_their_tail():
    assert split_positions(1000, 0.05).held_out == ((950, 1000),)
    assert split_positions(1000, 0.0).held_out == ()


@given(st.text(alphabet="aé€😀\n", max_size=200), FRACTIONS)
def test_text_is_cut_between_characters(text, held_out):
    data = text.encode()
    split = split_text(data, held_out)
    spans = sorted(split.training + split.held_out)
    assert "".join(data[start:stop].decode() for start, stop in spans) == text


@given(st.binary(max_size=300), FRACTIONS)
def test_bytes_that_are_not_text_are_tiled_too(data, held_out):
    split = split_text(data, held_out)
    assert sorted(positions(split.training) + positions(split.held_out)) == list(range(len(data)))


SPANS = st.lists(st.tuples(st.integers(1, 9), st.integers(0, 12)), min_size=0, max_size=6)


@given(SPANS, st.integers(1, 8))
def test_windows_are_exactly_those_that_fit(gaps_and_sizes, length):
    spans, position = [], 0
    for gap, size in gaps_and_sizes:
        spans.append((position + gap, position + gap + size))
        position += gap + size
    windows = Windows(tuple(spans), length)
    expected = [p for start, stop in spans for p in range(start, stop - length + 1)]
    assert windows.count == len(expected)
    assert windows.starts(np.arange(windows.count)).tolist() == expected
