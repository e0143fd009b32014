"""A user's wish is written out as a caption."""

import pytest

from captioners.ask import AskFailed, Reply, Request
from captioners.rewrite import polish


def says(*answers: str | Exception):
    left, asked = iter(answers), []

    def ask(request: Request) -> Reply:
        asked.append(request)
        answer = next(left)
        if isinstance(answer, Exception):
            raise answer
        return Reply(request.clip_id, answer, False)

    return ask, asked


def test_a_wish_is_written_out() -> None:
    ask, _ = says("Sure! Here's the caption: A red disc rolls to the right over a blue field.")
    assert polish(ask, "red disc rolling") == "A red disc rolls to the right over a blue field."


def test_a_wish_is_asked_about_without_frames_and_as_material() -> None:
    ask, asked = says("一个红色圆盘在蓝色的田野上向右滚动。")
    polish(ask, "红色圆盘 {context}", language="zh")
    assert asked[0].frames is None and "--------\n红色圆盘 {context}\n--------" in asked[0].prompt


def test_a_wish_that_nobody_can_write_out_is_told_in_one_line() -> None:
    for answers, reason in ((("", ""), "empty"), ((AskFailed("gone away"),) * 2, "gone away")):
        ask, _ = says(*answers)
        with pytest.raises(AskFailed, match=reason):
            polish(ask, "red disc")
