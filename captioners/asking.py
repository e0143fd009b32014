"""From a clip's row and frames to its caption: what is asked, and what becomes of a bad answer."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from captioners.ask import Ask, AskFailed, Reply, Request
from captioners.checks import STATUSES, check, mended, without_thoughts
from captioners.prompts import CONTEXT, Prompt, context_of, find_prompt
from core.errors import nearest
from core.sanitize import LONGEST_CAPTION, clean_text
from core.settings import key
from curation.schema import LANGUAGES
from curation.types import Caption, Frames, Row, Sampling

Describe = Callable[[Sequence[tuple[Row, Frames | None]]], list[Caption]]

LENGTH_PROMPTS = {"short": "short.v1", "medium": "medium.v1", "long": "detailed.v1"}
NO_FRAMES, FAILED = "no_frames", "failed"
"""What `caption_status` says where nothing was asked, and where nobody answered."""
RETRY_TEMPERATURE = 0.7
"""A bad caption is asked for again with at least this: greedily, the same would come back."""


@dataclass(frozen=True)
class Asking:
    """How a model is asked for captions."""

    prompts: tuple[str, ...] = key(
        ("detailed.v1",), "descriptions asked for: detailed.v1, short.v1, style.v1; several need `rewrite`"
    )
    languages: tuple[str, ...] = key(
        ("en",), "en, zh: each is asked for by itself; `caption` has the first, `caption_<language>` all"
    )
    lengths: tuple[str, ...] = key(
        (),
        "short, medium, long: captions of these lengths besides, each asked for by itself of the same frames; "
        "`caption_<language>_<length>` has them",
    )
    own_prompts: dict[str, str] = key({}, "a prompt of your own for each language, in place of `prompts`")
    rewrite: str | None = key(None, "prompt that merges the descriptions into one caption, such as rewrite.v1")
    context: tuple[str, ...] = key((), "what the model is told of a clip: camera, duration, text (as measured)")
    frames: int = key(8, "frames the model sees, at uniform times (one of an image)")
    rate_fps: float = key(4.0, "frames are chosen from this many per second")
    short_side_px: int = key(448, "frames are scaled down to this short side")
    max_tokens: int = key(512, "bound on a reply")
    max_characters: int = key(
        10_000, f"of a caption, at most {LONGEST_CAPTION}; a longer one is cut and rejected as `too_long`"
    )
    temperature: float = key(0.0, "0: the likeliest words, always the same ones")
    retries: int = key(1, "times that a truncated or bad caption is asked for again")
    mend: bool = key(True, "take off phrases that say nothing of the picture, such as 'The video shows'")
    unchecked: tuple[str, ...] = key((), f"what captions are not checked for, of: {', '.join(STATUSES[1:])}")

    def __post_init__(self) -> None:
        """Refuse what cannot be asked."""
        if not self.languages or len(set(self.languages)) < len(self.languages):
            raise ValueError(f"languages: give each of {', '.join(LANGUAGES)} at most once, and at least one")
        for length in self.lengths:
            if length not in LENGTH_PROMPTS:
                raise ValueError(f"lengths: there is no '{length}'{nearest(length, list(LENGTH_PROMPTS))}")
        if len(set(self.lengths)) < len(self.lengths):
            raise ValueError("lengths: give each at most once")
        for language in self.languages:
            for name in (*self.prompts, *([self.rewrite] if self.rewrite else [])):
                find_prompt(name, language)
            if self.own_prompts and language not in self.own_prompts:
                raise ValueError(f"own_prompts has none for the language '{language}'")
        for name in self.context:
            if name not in CONTEXT:
                raise ValueError(f"context: there is no '{name}'{nearest(name, list(CONTEXT))}")
        for name in self.unchecked:
            if name not in STATUSES[1:]:
                raise ValueError(f"unchecked: '{name}' is no check{nearest(name, list(STATUSES[1:]))}")
        if not self.prompts or (len(self.prompts) > 1 and not self.own_prompts and self.rewrite is None):
            raise ValueError("give one prompt, or several and `rewrite` (such as rewrite.v1) to merge the answers")
        if min(self.frames, self.short_side_px, self.max_tokens, self.max_characters) < 1 or self.rate_fps <= 0:
            raise ValueError("frames, short_side_px, max_tokens, max_characters and rate_fps must be above 0")
        if self.max_characters > LONGEST_CAPTION:
            raise ValueError(f"max_characters must be at most {LONGEST_CAPTION}")
        if self.retries < 0 or self.temperature < 0:
            raise ValueError("retries and temperature must not be negative")

    @property
    def sampling(self) -> Sampling:
        """RGB frames at uniform times."""
        return Sampling(self.rate_fps, self.frames, None, self.short_side_px, "rgb")

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns that hold the caption in each language, and those of each length."""
        lengths = (f"caption_{language}_{length}" for language in self.languages for length in self.lengths)
        return (*(f"caption_{language}" for language in self.languages), *lengths)

    def prompts_in(self, language: str) -> list[Prompt]:
        """Return what is asked in one language."""
        if self.own_prompts:
            return [Prompt("own", language, self.own_prompts[language])]
        return [find_prompt(name, language) for name in self.prompts]

    def author(self, model: str) -> str:
        """Return the model's name together with what it was asked, for the column `caption_model`."""
        asked = ["own"] if self.own_prompts else list(self.prompts)
        return f"{model} ({', '.join([*asked, *([self.rewrite] if self.rewrite else [])])})"


@dataclass(frozen=True)
class Outcome:
    """What came of asking for one text: `status` is `ok` or what is wrong with it."""

    text: str | None
    status: str
    error: str | None = None


def described(ask: Ask, asking: Asking, model: str, ask_rewriter: Ask | None = None) -> Describe:
    """Turn a model that answers questions into a captioner's loaded function.

    The function keeps nothing between calls and may be called from as many threads as `ask` may.

    Args:
        ask: answers questions about frames.
        asking: what is asked.
        model: its name, for the table.
        ask_rewriter: answers questions without frames, to merge descriptions; null: `ask` does.
    """

    def describe(clips: Sequence[tuple[Row, Frames | None]]) -> list[Caption]:
        return [describe_one(row, frames) for row, frames in clips]

    def describe_one(row: Row, frames: Frames | None) -> Caption:
        texts: dict[str, str] = {}
        for language in asking.languages:
            told = Outcome(None, NO_FRAMES) if frames is None else in_language(row, frames, language)
            if told.status != "ok" or told.text is None:
                return _caption(row, told, asking.author(model), {})
            texts[f"caption_{language}"] = told.text
        for language in asking.languages:
            for length in asking.lengths:
                assert frames is not None
                told = of_length(row, frames, language, length, texts[f"caption_{language}"])
                if told.status != "ok" or told.text is None:
                    return _caption(row, told, asking.author(model), {})
                texts[f"caption_{language}_{length}"] = told.text
        return _caption(row, Outcome(texts[f"caption_{asking.languages[0]}"], "ok"), asking.author(model), texts)

    def of_length(row: Row, frames: Frames, language: str, length: str, caption: str) -> Outcome:
        name = LENGTH_PROMPTS[length]
        if asking.prompts == (name,) and not asking.own_prompts and asking.rewrite is None:
            return Outcome(caption, "ok")  # it was asked for already
        prompt = find_prompt(name, language)
        context = context_of(row, asking.context, language)
        request = _request(asking, row, prompt.filled(row.get("type") or "video", context), frames)
        return answered(ask, request, prompt, asking)

    def in_language(row: Row, frames: Frames, language: str) -> Outcome:
        context, type = context_of(row, asking.context, language), row.get("type") or "video"
        told: list[str] = []
        for prompt in asking.prompts_in(language):
            request = _request(asking, row, prompt.filled(type, context), frames)
            outcome = answered(ask, request, prompt, asking)
            if outcome.status != "ok" or outcome.text is None:
                return outcome
            told.append(outcome.text)
        if asking.rewrite is None:
            return Outcome(told[0], "ok")
        prompt = find_prompt(asking.rewrite, language)
        request = _request(asking, row, prompt.filled(type, context, told), None)
        return answered(ask_rewriter or ask, request, prompt, asking)

    return describe


def answered(ask: Ask, request: Request, prompt: Prompt, asking: Asking) -> Outcome:
    """Ask until the answer passes its checks, or has been asked for often enough.

    A truncated answer is asked for again with twice the tokens, any other bad one with more chance in it.
    Whatever was answered, the text is well-formed and within `max_characters`.
    """
    outcome = Outcome(None, FAILED)
    for _ in range(1 + asking.retries):
        try:
            reply = ask(request)
        except AskFailed as failed:
            if outcome.status == FAILED:
                outcome = Outcome(None, FAILED, str(failed))
            continue
        if reply.clip_id != request.clip_id:
            raise RuntimeError(f"clip {request.clip_id} was asked about, the answer is for {reply.clip_id}")
        text, status = _looked_at(reply, prompt, asking)
        if status == "ok":
            return Outcome(text, "ok")
        outcome = Outcome(text, status)
        if status == "truncated" or (status == "empty" and reply.is_truncated):
            request = replace(request, max_tokens=2 * request.max_tokens)
        else:
            request = replace(request, temperature=max(request.temperature, RETRY_TEMPERATURE))
    return outcome


def _looked_at(reply: Reply, prompt: Prompt, asking: Asking) -> tuple[str, str]:
    """Return an answer's text and status; one that is too long is looked at no further, which would take long."""
    most = LONGEST_CAPTION if "too_long" in asking.unchecked else asking.max_characters
    said = reply.text
    if len(said) > most:
        said = without_thoughts(said) if asking.mend else said.strip()
    if len(said) > most:
        return clean_text(said, most), "too_long"
    said = clean_text(said)
    text = mended(said) if asking.mend else said.strip()
    return text, check(text, prompt.language, prompt.instructions, asking.unchecked, is_truncated=reply.is_truncated)


def _request(asking: Asking, row: Row, prompt: str, frames: Frames | None) -> Request:
    return Request(row["clip_id"], prompt, frames, asking.max_tokens, asking.temperature)


def _caption(row: Row, outcome: Outcome, author: str, texts: dict[str, str]) -> Caption:
    return Caption(outcome.text, author, outcome.status, row["clip_id"], texts, outcome.error)
