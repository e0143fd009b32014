"""Questions of `find` and `review`: words, pictures and clip ids, made ready by the models of an output's recipe."""

import functools
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from cli.common import check_weights
from core.errors import MediaError, UserError
from curation.analysis.in_memory import clip_of
from curation.dedup.vectors import unit
from curation.find.question import Question, has_embeddings, like_clip, row_of
from curation.find.rank import By
from curation.recipe import Recipe
from curation.types import Operator
from media.image import read_image
from media.names import looks_like_image
from models.errors import ModelError
from operators.clip_frames import Clip
from operators.temporal_hash import TemporalHash


@dataclass(frozen=True)
class Asking:
    """Makes questions ready for a table.

    Attributes:
        recipe: of the table; its `embedding` names the CLIP that texts and pictures go through.
        lacks: why that CLIP cannot be loaded here; None: it can, or there is none.
    """

    recipe: Recipe
    lacks: str | None

    def words(self, table: pa.Table, words: str, by: By | None) -> Question:
        """Return the question for a clip id of the table, else for a text.

        Raises:
            UserError: nothing is asked, or a clip that cannot be compared.
            ModelError: the CLIP that the table was made with cannot be loaded.
        """
        words = words.strip()
        if not words:
            raise UserError("find: nothing is asked", fix="give words, a picture or a clip id")
        if row_of(table, words) >= 0:
            return like_clip(table, words)
        embeds = self._embeds(table, by)
        vector = text_vector(self.recipe.operators["embedding"].clip, words) if embeds else None
        return Question(text=words, vector=vector)

    def picture(self, table: pa.Table, file: Path, by: By | None) -> Question:
        """Return the question for clips that look like a picture.

        Raises:
            UserError: it is no picture that can be read, or one that shows nothing.
            ModelError: the CLIP that the table was made with cannot be loaded.
        """
        if by == "words":
            raise UserError("a picture has no words", field="by", value="words", fix="compare it by embedding or hash")
        if not looks_like_image(file):
            raise UserError(f"find: {file} is no picture", fix="give a frame of it, or the id of a clip")
        try:
            pixels = read_image(file, self.recipe.limits.max_pixels)[None]
        except MediaError as error:
            raise UserError(f"find: {file}: {error}", fix="give another picture") from None
        vector = None
        if self._embeds(table, by):
            vector = _score(self.recipe.operators["embedding"], pixels)
        words = _score(TemporalHash(), pixels)
        if vector is None and words is None:
            raise UserError(f"find: {file} shows next to nothing", fix="give another picture")
        return Question(vector=None if vector is None else np.array(vector, np.float32), hash=words)

    def _embeds(self, table: pa.Table, by: By | None) -> bool:
        """Return whether a question needs a vector.

        Raises:
            ModelError: one is asked for, and the CLIP is not here.
        """
        is_usual = by is None and self.lacks is None and has_embeddings(table)
        if by == "embedding" and self.lacks is not None:
            raise ModelError(self.lacks)
        return is_usual or (by == "embedding" and "embedding" in self.recipe.operators)


def asking_for(recipe: Recipe) -> Asking:
    """Look whether the CLIP of a recipe is here."""
    operator = recipe.operators.get("embedding")
    try:
        if operator is not None:
            check_weights(operator)
    except ModelError as error:
        return Asking(recipe, str(error))
    return Asking(recipe, None)


@functools.lru_cache(256)
def text_vector(clip: Clip, text: str) -> np.ndarray:
    """Return the direction of a text, float32 (D,): of a long one the mean of its parts'."""
    tower = clip.load()
    parts = tower.encode_texts(tower.split_text(text) or [text])
    return np.asarray(unit(parts.mean(axis=0)[None])[0])


def _score(operator: Operator, pixels: np.ndarray) -> list[Any] | None:
    """Return the vector that an operator of one column gives of a picture."""
    clip = clip_of(operator, pixels, 1.0)
    values: list[Any] | None = None if clip is None else operator.load()([clip])[0][operator.writes[0]]
    return values
