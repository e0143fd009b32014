"""The training clip that each sample is most like: what a model that copies gives itself away by.

Pictures are compared by the 64-bit words of `temporal_hash`. Each of a sample's eight pictures is compared with the
nearest of a clip's eight, whatever their order, so that a sample that shows a part of a clip, or shows it at another
pace, is found too.

Measured on 88 stretches of 5 s of 35 real videos: of the half and of the quarter of a stretch 89 to 93 % differ from
the whole in at most 64 of 512 bits (in order 34 to 60 %), the median in 13 to 16; stretches of different videos in 133
at least, the median in 227. Other stretches of the same video are as near as that in half of the cases: they show the
same scene. A copy with 5 % cut off every side differs in 90 bits and is not told; CLIP vectors see through that.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from curation.dedup.duplicates import PICTURE_WORDS, Duplicates
from curation.dedup.hamming import picture_distances
from curation.dedup.vectors import unit, vectors
from evaluation.population import Population

PICTURE_BITS = 64 * PICTURE_WORDS
LIKELY_COPY_BITS: int = Duplicates().picture_bits
"""so many of the 512 picture bits, or fewer, differ between a clip and its copies"""
LIKELY_COPY_COSINE = 0.99
"""CLIP vectors of copies are at least this alike"""
AT_ONCE = 1 << 16
"""vectors compared at a time"""


@dataclass(frozen=True)
class Neighbour:
    """A training clip near a sample.

    Attributes:
        clip_id: which.
        source_path: where it is from.
        start_s: its span in the source; null for a picture.
        end_s: likewise.
        clip_path: its file, relative to the reference; null where it has none.
        picture_bits: how many of 512 bits differ; null: not compared by them.
        cosine: likeness of CLIP vectors, to 1; null: not compared by them.
    """

    clip_id: str
    source_path: str
    start_s: float | None
    end_s: float | None
    clip_path: str | None
    picture_bits: int | None = None
    cosine: float | None = None


@dataclass(frozen=True)
class Nearest:
    """The neighbours of one sample.

    Attributes:
        sample_id: its id in the table of samples.
        sample: path of its file, relative to the folder that was named.
        prompt: what it was made from.
        by_pictures: the clip with the nearest pictures; null: its pictures show too little to compare, or no
            training clip has a hash.
        by_embedding: the clip with the nearest CLIP vector; null: not compared.
    """

    sample_id: str
    sample: str
    prompt: str | None
    by_pictures: Neighbour | None
    by_embedding: Neighbour | None

    @property
    def is_likely_copy(self) -> bool:
        """Return whether one of the neighbours is as near as copies are."""
        bits = None if self.by_pictures is None else self.by_pictures.picture_bits
        cosine = None if self.by_embedding is None else self.by_embedding.cosine
        return (bits is not None and bits <= LIKELY_COPY_BITS) or (cosine is not None and cosine >= LIKELY_COPY_COSINE)


def find_nearest(samples: Population, reference: Population) -> list[Nearest]:
    """Find the training clips nearest to each sample that could be read, the nearest pair first."""
    pictures = _by_pictures(samples.clips, reference.table_of("temporal_hash"))
    embeddings = _by_embedding(samples.clips, reference.table_of("embedding"))
    rows = samples.clips.select(["clip_id", "source_path", "caption", "status"]).to_pylist()
    found = [
        Nearest(row["clip_id"], row["source_path"], row["caption"], pictures.get(place), embeddings.get(place))
        for place, row in enumerate(rows)
        if row["status"] != "failed"
    ]
    return sorted(found, key=_order)


def compared_with(reference: Population) -> int:
    """Return how many training clips samples are compared with by their pictures."""
    table = reference.table_of("temporal_hash")
    return 0 if table is None else len(vectors(table, "temporal_hash")[1])


def _by_pictures(samples: pa.Table, table: pa.Table | None) -> dict[int, Neighbour]:
    if table is None or "temporal_hash" not in samples.column_names:
        return {}
    mine, theirs = vectors(samples, "temporal_hash"), vectors(table, "temporal_hash")
    if not len(mine[1]) or not len(theirs[1]):
        return {}
    asked, others = (np.ascontiguousarray(v[:, :PICTURE_WORDS]).view(np.uint64) for v in (mine[0], theirs[0]))
    by_word = np.ascontiguousarray(others.T)
    found = {}
    for place, words in zip(mine[1].tolist(), asked, strict=True):
        distances = picture_distances(words, by_word)
        best = int(distances.argmin())
        found[place] = _neighbour(table, int(theirs[1][best]), picture_bits=round(distances[best]))
    return found


def _by_embedding(samples: pa.Table, table: pa.Table | None) -> dict[int, Neighbour]:
    if table is None or "embedding" not in samples.column_names:
        return {}
    mine, theirs = vectors(samples, "embedding"), vectors(table, "embedding")
    if not len(mine[1]) or not len(theirs[1]):
        return {}
    asked = unit(mine[0])
    best, cosine = np.zeros(len(asked), int), np.full(len(asked), -np.inf, np.float32)
    for begin in range(0, len(theirs[0]), AT_ONCE):
        alike = asked @ unit(theirs[0][begin : begin + AT_ONCE]).T
        here = alike.argmax(axis=1)
        value = alike[np.arange(len(asked)), here]
        best, cosine = np.where(value > cosine, begin + here, best), np.maximum(cosine, value)
    places = zip(mine[1].tolist(), theirs[1][best].tolist(), cosine.tolist(), strict=True)
    return {place: _neighbour(table, row, cosine=min(1.0, value)) for place, row, value in places}


def _neighbour(table: pa.Table, row: int, picture_bits: int | None = None, cosine: float | None = None) -> Neighbour:
    names = ("clip_id", "source_path", "start_s", "end_s", "clip_path")
    told = {name: table[name][row].as_py() for name in names}
    return Neighbour(**told, picture_bits=picture_bits, cosine=cosine)


def _order(nearest: Nearest) -> tuple[float, float, str]:
    bits = nearest.by_pictures.picture_bits if nearest.by_pictures else None
    cosine = nearest.by_embedding.cosine if nearest.by_embedding else None
    return (PICTURE_BITS + 1 if bits is None else bits, 0.0 if cosine is None else -cosine, nearest.sample)


def likely_copies(nearest: Sequence[Nearest]) -> int:
    """Count the samples that are likely copies."""
    return sum(one.is_likely_copy for one in nearest)
