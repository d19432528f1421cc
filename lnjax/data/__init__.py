"""Data: text corpora, token shards and synthetic tasks as batches that depend on (seed, k) only.

    dataset = open_dataset(DataConfig(source="python_stdlib", sequence_length=128, batch_size=16))
    dataset.batch(seed=0, k=0)["tokens"]      # int32 [16, 129], the same whenever it is asked for
    dataset.evaluation_batch(0)["tokens"]     # held out; the same for every seed

NumPy only; the libraries for BPE and for Hugging Face datasets are imported where they are used.
"""

from lnjax.data.config import SOURCES, DataConfig
from lnjax.data.corpora import Corpus, read_python_stdlib, read_text
from lnjax.data.dataset import Batch, CorpusDataset, Dataset, SyntheticDataset
from lnjax.data.opening import open_dataset
from lnjax.data.shards import write_shard
from lnjax.data.synthetic import CopyTask, MarkovTask
from lnjax.data.tokenizers import BPETokenizer, ByteTokenizer, Tokenizer

__all__ = [
    "SOURCES",
    "BPETokenizer",
    "Batch",
    "ByteTokenizer",
    "CopyTask",
    "Corpus",
    "CorpusDataset",
    "DataConfig",
    "Dataset",
    "MarkovTask",
    "SyntheticDataset",
    "Tokenizer",
    "open_dataset",
    "read_python_stdlib",
    "read_text",
    "write_shard",
]
