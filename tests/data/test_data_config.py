"""DataConfig: every field is validated, and a mistake names its remedy."""

import ml_collections
import numpy as np
import pytest

from lnjax.data import SOURCES, DataConfig


@pytest.mark.parametrize(
    ("fields", "error", "message"),
    [
        ({"source": "python_stdlb"}, ValueError, "Did you mean 'python_stdlib'.*huggingface"),
        ({"source": "zzz"}, ValueError, "Known: copy, huggingface, markov"),
        ({"tokenizer": "byte"}, ValueError, "Did you mean 'bytes'"),
        ({"source": "text"}, ValueError, "needs data.path.*glob"),
        ({"source": "shards"}, ValueError, "needs data.path"),
        ({"source": "huggingface"}, ValueError, "needs data.path"),
        ({"path": "a.txt"}, ValueError, "not used by data.source='python_stdlib'"),
        ({"source": "huggingface", "path": "x", "split": ""}, ValueError, "data.split"),
        ({"source": "huggingface", "path": "x", "text_field": ""}, ValueError, "data.text_field"),
        ({"sequence_length": 0}, ValueError, "sequence_length must be at least 1"),
        ({"batch_size": 0}, ValueError, "batch_size must be at least 1"),
        ({"evaluation_batches": -1}, ValueError, "evaluation_batches must be at least 0"),
        ({"held_out": 1.0}, ValueError, "held_out"),
        ({"held_out": -0.1}, ValueError, "held_out"),
        ({"held_out": float("nan")}, ValueError, "held_out"),
        ({"held_out": 0.0}, ValueError, "evaluation_batches=0"),
        ({"vocab_size": -1}, ValueError, "vocab_size"),
        ({"vocab_size": 2**31}, ValueError, "vocab_size"),
        ({"vocab_size": 255}, ValueError, "smaller than the 256 bytes"),
        ({"tokenizer": "bpe"}, ValueError, "needs data.vocab_size above 256"),
        ({"tokenizer": "bpe", "vocab_size": 256}, ValueError, "above 256"),
        ({"source": "copy", "tokenizer": "bpe"}, ValueError, "does not apply"),
        ({"source": "copy", "vocab_size": 1}, ValueError, "trivial"),
        ({"source": "markov", "vocab_size": 5000}, ValueError, "at most 4096"),
        ({"sequence_length": 128.0}, TypeError, "sequence_length must be int"),
        ({"batch_size": True}, TypeError, "batch_size must be int"),
        ({"held_out": "0.1"}, TypeError, "held_out must be float"),
        ({"path": None}, TypeError, "path must be str"),
    ],
)
def test_mistakes_name_the_field_and_the_remedy(fields, error, message):
    with pytest.raises(error, match=message):
        DataConfig.from_dict(fields)


def test_every_source_has_a_valid_configuration():
    for source in SOURCES:
        path = "x" if source in ("text", "shards", "huggingface") else ""
        assert DataConfig(source=source, path=path).source == source


def test_no_evaluation_at_all_is_allowed():
    assert DataConfig(held_out=0.0, evaluation_batches=0).held_out == 0


def test_numbers_become_python_numbers_of_the_fields_type():
    config = DataConfig.from_dict(
        {"held_out": 0, "evaluation_batches": 0, "batch_size": np.int64(4)}
    )
    assert type(config.held_out) is float and type(config.batch_size) is int


def test_from_dict_takes_dict_and_config_dict():
    fields = {"source": "copy", "batch_size": 3}
    assert DataConfig.from_dict(fields) == DataConfig(source="copy", batch_size=3)
    assert DataConfig.from_dict(ml_collections.ConfigDict(fields)) == DataConfig.from_dict(fields)


def test_from_dict_refuses_unknown_fields():
    with pytest.raises(ValueError, match="Did you mean 'batch_size'"):
        DataConfig.from_dict({"batchsize": 3})
