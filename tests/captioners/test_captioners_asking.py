"""From clips to captions through a model that a test plays."""

import dataclasses
import re
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from captioners.ask import AskFailed, Reply, Request
from captioners.asking import Asking, described
from core.errors import RunError, UserError
from core.settings import build, plain
from curation.types import Caption, Frames, Row

GOOD = "A woman in a yellow raincoat walks along a wet pier."
GOOD_ZH = "一位身穿黄色雨衣的女子沿着湿漉漉的码头行走。"
FRAMES = Frames(np.zeros((4, 8, 8, 3), np.uint8), np.arange(4) + 0.5)
ROW: Row = {"clip_id": "a", "type": "video", "duration_s": 4.0}


def says(*answers: str | Reply | Exception) -> tuple[Callable[[Request], Reply], list[Request]]:
    """A model that gives these answers one after another, and the list of what it was asked."""
    asked: list[Request] = []
    left: Iterator[str | Reply | Exception] = iter(answers)

    def ask(request: Request) -> Reply:
        asked.append(request)
        answer = next(left)
        if isinstance(answer, Exception):
            raise answer
        return answer if isinstance(answer, Reply) else Reply(request.clip_id, answer, False)

    return ask, asked


def caption_of(asking: Asking, *answers: str | Reply | Exception, row: Row = ROW) -> tuple[Caption, list[Request]]:
    ask, asked = says(*answers)
    (caption,) = described(ask, asking, "model")([(row, FRAMES)])
    return caption, asked


def test_a_good_answer_is_the_caption() -> None:
    caption, (request,) = caption_of(Asking(), GOOD)
    assert caption == Caption(GOOD, "model (detailed.v1)", "ok", "a", {"caption_en": GOOD})
    assert request.frames is FRAMES and (request.clip_id, request.max_tokens, request.temperature) == ("a", 512, 0.0)
    assert "Describe this video" in request.prompt


def test_an_image_is_asked_about_as_one() -> None:
    _, (request,) = caption_of(Asking(), GOOD, row=ROW | {"type": "image"})
    assert "Describe this image" in request.prompt


def test_a_truncated_answer_is_asked_for_again_with_twice_the_tokens() -> None:
    caption, (first, second) = caption_of(Asking(), Reply("a", "A woman in a", True), GOOD)
    assert (caption.text, caption.status) == (GOOD, "ok")
    assert (second.max_tokens, second.temperature) == (2 * first.max_tokens, 0.0)


def test_a_bad_answer_is_asked_for_again_with_chance_in_it() -> None:
    caption, (first, second) = caption_of(Asking(), "I'm sorry, I can't.", GOOD)
    assert caption.status == "ok"
    assert second.max_tokens == first.max_tokens and second.temperature > 0


@pytest.mark.parametrize("retries", [0, 1, 3])
def test_an_answer_that_stays_bad_tells_what_is_wrong_and_is_asked_for_so_many_times(retries: int) -> None:
    refusal = "I'm sorry, I can't."
    caption, asked = caption_of(Asking(retries=retries), *[refusal] * 9)
    assert (caption.text, caption.status) == (refusal, "refusal")
    assert len(asked) == 1 + retries


def test_a_model_that_answers_at_the_second_try_is_enough() -> None:
    caption, _ = caption_of(Asking(), AskFailed("gone"), GOOD)
    assert caption.status == "ok"


def test_a_clip_that_nobody_answers_for_fails_and_no_other() -> None:
    ask, _ = says(AskFailed("gone"), AskFailed("gone"), GOOD)
    lost, kept = described(ask, Asking(), "model")([(ROW, FRAMES), (ROW | {"clip_id": "b"}, FRAMES)])
    assert (lost.clip_id, lost.text, lost.status, lost.error) == ("a", None, "failed", "gone")
    assert (kept.clip_id, kept.text, kept.status, kept.error) == ("b", GOOD, "ok", None)


def test_of_a_bad_answer_and_none_the_answer_is_told() -> None:
    caption, _ = caption_of(Asking(), Reply("a", "A woman in a", True), AskFailed("too many tokens"))
    assert (caption.text, caption.status) == ("A woman in a", "truncated")


def test_a_broken_run_is_not_taken_for_a_failed_clip() -> None:
    with pytest.raises(RunError):
        caption_of(Asking(), RunError("the server is gone"))


def test_an_answer_for_another_clip_is_never_written() -> None:
    with pytest.raises(RuntimeError, match="clip a was asked about, the answer is for b"):
        caption_of(Asking(), Reply("b", GOOD, False))


def test_a_clip_without_frames_is_not_asked_about() -> None:
    ask, asked = says()
    (caption,) = described(ask, Asking(), "model")([(ROW, None)])
    assert (caption.text, caption.status, asked) == (None, "no_frames", [])


def test_phrases_about_the_video_are_taken_off_or_found_as_the_recipe_says() -> None:
    said = "The video shows two dogs on a beach."
    assert caption_of(Asking(), said)[0].text == "Two dogs on a beach."
    assert caption_of(Asking(mend=False), said, said)[0].status == "boilerplate"
    assert caption_of(Asking(mend=False, unchecked=("boilerplate",)), said)[0].text == said


def test_each_language_is_asked_for_in_its_own_words() -> None:
    caption, asked = caption_of(Asking(languages=("zh", "en")), GOOD_ZH, GOOD)
    assert caption.text == GOOD_ZH and caption.texts == {"caption_zh": GOOD_ZH, "caption_en": GOOD}
    assert ["请用一段" in request.prompt for request in asked] == [True, False]
    assert Asking(languages=("zh", "en")).columns == ("caption_zh", "caption_en")


def test_a_caption_in_the_wrong_language_rejects_the_clip() -> None:
    caption, _ = caption_of(Asking(languages=("en", "zh")), GOOD, GOOD, GOOD)
    assert caption.status == "wrong_language" and caption.texts == {}


def test_several_descriptions_are_merged_by_a_question_without_frames() -> None:
    style = "Live action, eye level, a slow tracking shot in soft grey light."
    asking = Asking(prompts=("detailed.v1", "style.v1"), rewrite="rewrite.v1", context=("duration",))
    caption, (first, second, merge) = caption_of(asking, GOOD, style, "A merged caption of a woman on a pier.")
    assert caption.text == "A merged caption of a woman on a pier."
    assert caption.model == "model (detailed.v1, style.v1, rewrite.v1)"
    assert first.frames is second.frames is FRAMES and merge.frames is None
    assert GOOD in merge.prompt and style in merge.prompt
    assert all("It lasts 4.0 seconds." in request.prompt for request in (first, second, merge))


def test_another_model_may_merge() -> None:
    eyes, seen = says(GOOD)
    writer, written = says("A merged caption of a woman on a pier.")
    (caption,) = described(eyes, Asking(rewrite="rewrite.v1"), "model", writer)([(ROW, FRAMES)])
    assert caption.text == "A merged caption of a woman on a pier."
    assert len(seen) == len(written) == 1 and written[0].frames is None


def test_nothing_is_merged_from_a_bad_description() -> None:
    asking = Asking(prompts=("detailed.v1", "style.v1"), rewrite="rewrite.v1", retries=0)
    caption, asked = caption_of(asking, GOOD, "")
    assert caption.status == "empty" and len(asked) == 2


def test_a_prompt_of_ones_own_is_asked_as_it_is() -> None:
    asking = Asking(own_prompts={"en": "Name the weather in this {noun}. {context}"}, context=("duration",))
    caption, (request,) = caption_of(asking, "Rain falls on a pier.")
    assert request.prompt == "Name the weather in this video. It lasts 4.0 seconds."
    assert caption.model == "model (own)"


@given(st.permutations(list(range(12))), st.integers(1, 5))
def test_captions_stay_with_their_clips_whoever_is_answered_first(order: list[int], batch: int) -> None:
    def ask(request: Request) -> Reply:
        number = int(request.clip_id)
        if number % 3 == 0 and request.temperature == 0:
            raise AskFailed("busy")
        return Reply(request.clip_id, f"A card with the number {number} lies on a table.", False)

    describe = described(ask, Asking(), "model")
    clips = [({"clip_id": str(number), "type": "video"}, FRAMES) for number in order]
    batches = [clips[i : i + batch] for i in range(0, len(clips), batch)]
    with ThreadPoolExecutor(4) as pool:
        captions = [caption for captions in pool.map(describe, batches) for caption in captions]
    for number, caption in zip(order, captions, strict=True):
        assert caption.clip_id == str(number)
        assert caption.status == ("failed" if number % 3 == 0 else "ok")
        if caption.text is not None:
            assert re.search(r"\d+", caption.text)[0] == str(number)  # type: ignore[index]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"prompts": ["detailed"]}, "detailed.v1"),
        ({"prompts": ["detailed.v1", "style.v1"]}, "rewrite"),
        ({"prompts": []}, "give one prompt"),
        ({"languages": ["fr"]}, "'fr'"),
        ({"languages": []}, "languages"),
        ({"languages": ["en", "en"]}, "languages"),
        ({"rewrite": "rewrite"}, "rewrite.v1"),
        ({"context": ["camara"]}, "camera"),
        ({"unchecked": ["boilerplates"]}, "boilerplate"),
        ({"unchecked": ["empty"]}, "empty"),
        ({"own_prompts": {"zh": "?"}}, "'en'"),
        ({"frames": 0}, "above 0"),
        ({"retries": -1}, "negative"),
        ({"max_token": 1}, "max_tokens"),
    ],
)
def test_a_wrong_setting_is_one_line_that_says_where_and_names_the_mend(settings: dict, message: str) -> None:
    with pytest.raises(UserError, match=re.escape(message)) as caught:
        build(Asking, settings, "caption.settings.asking")
    assert "caption.settings.asking" in str(caught.value) and "\n" not in str(caught.value)


def test_settings_come_back_from_the_recipe_they_are_written_to() -> None:
    asking = Asking(languages=("en", "zh"), context=("camera",), own_prompts={"en": "a", "zh": "b"})
    assert build(Asking, plain(asking), "asking") == asking


def test_the_captioner_sees_so_many_frames_of_such_a_size() -> None:
    sampling = Asking(frames=5, short_side_px=224, rate_fps=2.0).sampling
    assert dataclasses.asdict(sampling) == {
        "rate_fps": 2.0, "count": 5, "gap_s": None, "short_side_px": 224, "color": "rgb",
    }  # fmt: skip


def test_captions_of_several_lengths_are_asked_for_of_the_same_frames() -> None:
    short, medium = (
        "A woman walks along a pier.",
        "A woman in a raincoat walks along a wet pier. Waves break behind her.",
    )
    caption, asked = caption_of(Asking(lengths=("short", "medium", "long")), GOOD, short, medium)
    assert caption.text == GOOD and caption.status == "ok"
    expected = {"caption_en_short": short, "caption_en_medium": medium, "caption_en_long": GOOD}
    assert caption.texts == {"caption_en": GOOD} | expected
    assert Asking(lengths=("short", "medium", "long")).columns == tuple(caption.texts)
    assert len(asked) == 3 and all(request.frames is FRAMES for request in asked), "the long one was asked for already"
    assert "one sentence" in asked[1].prompt and "30 to 60 words" in asked[2].prompt
    both, asked = caption_of(Asking(languages=("en", "zh"), lengths=("short",)), GOOD, GOOD_ZH, short, GOOD_ZH)
    assert both.texts["caption_zh_short"] == GOOD_ZH and both.texts["caption_en_short"] == short
    bad, _ = caption_of(Asking(lengths=("short",), retries=0), GOOD, "")
    assert bad.status == "empty" and bad.texts == {}
    with pytest.raises(ValueError, match="there is no 'brief'"):
        Asking(lengths=("brief",))
