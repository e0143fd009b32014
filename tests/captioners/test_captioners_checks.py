"""Bad captions are known by what is wrong with them; ordinary ones, however odd their subject, pass."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from captioners.checks import STATUSES, check, is_written_in, mended, repeats_itself, sentences, tokens
from captioners.prompts import find_prompt, names
from captioners.template import describe

ORDINARY_EN = (
    "A woman in a yellow raincoat walks along a wet pier, and gulls circle above her while the camera follows slowly.",
    'A man holds up a cardboard sign that reads "I\'m sorry, I cannot do this any more" and lowers it again.',
    "A girl watches a video on her phone; its image shows a cat, and she laughs at what the video shows.",
    "Close-up of a television: the picture flickers, the frame of the set is chipped, the room around it is dark.",
    "A red car on the left, a blue car on the right, and a red bicycle in the middle wait at a red light.",
    "Very, very slowly a snail crosses a stone. Drops fall, and fall, and fall again into the pool behind it.",
    "A digital clock changes from 00:00:00 to 00:00:59; its digits are 0 0 0 0 5 9 in green.",
    "A hair clip lies on a marble table, and the end of the clip catches the light.",
    'A neon sign says "OPEN OPEN OPEN OPEN" above a bar in Tokyo; a board beside it reads "いらっしゃいませ".',
    "The scene is lit by candles. A boy apologises to his mother with a bow, and she turns away, unable to look.",
    "An AI-generated portrait of a knight hangs in a gallery; visitors in dark coats pass in front of it.",
    "A user interface with a system menu and an assistant window; a pointer moves to the field for the answer.",
    "El Capitan rises over the Merced river. La Jolla, Los Angeles and Las Vegas appear on a map that is unrolled.",
    "Chef Müller and José Álvarez cook in São Paulo: crème brûlée, jalapeños and smörgås on a long wooden table.",
    "Waves.",
    "cinematic, 35mm, shallow depth of field, golden hour, anamorphic flare, teal and orange, film grain",
    "In the picture frame on the wall, a child smiles. Beside it a lamp is turned on.",
    "A close-up of hands kneading dough. The hands fold it, press it, turn it, fold it, press it and turn it again.",
    "Here a river divides: one arm is white with foam, the other one green and still.",
)
ORDINARY_ZH = (
    "一位身穿黄色雨衣的女子沿着湿漉漉的码头行走，海鸥在她头顶盘旋，镜头缓缓跟随。",
    "男子举起一块纸板，上面写着“对不起，我无法继续”，随后放下。",
    "画面左侧是一辆红色汽车，右侧是一辆蓝色汽车，中间停着一辆红色自行车。",
    "女孩在手机上看视频，屏幕上是一只猫，她笑了起来。",
    "一个穿着白色衬衫的男人和一个穿着黑色裙子的女人在公园里散步，一个孩子在他们身后奔跑。",
    "一台 iPhone 和一台 MacBook Pro 放在木桌上，屏幕亮着，旁边是一杯咖啡和一本打开的书。",
    "雨滴滴答答地落在窗台上，慢慢地，慢慢地，水面泛起一圈圈涟漪。",
    "镜头固定，海浪一次又一次拍打礁石，浪花四溅。",
)
BAD_EN = (
    ("", "empty"),
    (" \n\t", "empty"),
    ("I'm sorry, but I can't help with describing this person.", "refusal"),
    ("I’m unable to view videos directly. Could you describe it?", "refusal"),
    ("As an AI language model, I do not have eyes. A man may be seen.", "refusal"),
    ("A man may be walking. However, as an AI model, I cannot be certain about it.", "refusal"),
    ("Unfortunately, I cannot see anything here.", "refusal"),
    ("No image was provided, so nothing can be described.", "refusal"),
    ("Please provide the video that you would like me to describe.", "refusal"),
    ("I don't see any video attached to the message.", "refusal"),
    ("Sorry, I can not do that.", "refusal"),
    ("A man walks.<|im_end|>\n<|im_start|>user", "prompt_leak"),
    ("<image> A man walks along a road.", "prompt_leak"),
    ("USER: describe it\nASSISTANT: A man walks along a road.", "prompt_leak"),
    ("[INST] A man walks along a road. [/INST]", "prompt_leak"),
    ("```json\n{}\n```", "prompt_leak"),
    ("A man walks along a road. The road is {context}", "prompt_leak"),
    ("一名男子沿着道路行走，天空晴朗，路旁有树。", "wrong_language"),
    ("Un hombre camina por la calle mientras el sol se pone y las luces de los coches se encienden.", "wrong_language"),
    ("Ein Mann geht auf der Straße und die Sonne ist hinter den Häusern, mit dem Hund an der Leine.", "wrong_language"),
    ("Un homme marche dans la rue avec un chien, et les voitures sont sur le pont.", "wrong_language"),
    ("Мужчина идёт по дороге, а за ним бежит собака.", "wrong_language"),
    ("男の人が道を歩いています。", "wrong_language"),
    ("The video shows a man walking along a road.", "boilerplate"),
    ("A man walks. In this video, he also runs.", "boilerplate"),
    ("This is a photo of a man on a road.", "boilerplate"),
    ("A man walks. The video then cuts to a dog.", "boilerplate"),
    ("The mood of the video is calm and warm.", "boilerplate"),
    ("a man walks and walks and walks and walks and walks", "repetition"),
    ("A man walks along the road. A dog runs behind him. A man walks along the road.", "repetition"),
    ("the red car, the blue car, " * 6, "repetition"),
    ("gold gold gold gold gold", "repetition"),
)
BAD_ZH = (
    ("抱歉，我无法描述这段内容。", "refusal"),
    ("作为一个人工智能，我看不到画面。", "refusal"),
    ("请提供需要描述的素材，谢谢。", "refusal"),
    ("A man walks along the road, and a dog follows him.", "wrong_language"),
    ("男の人が道を歩いていて、犬がその後ろを走っています。", "wrong_language"),
    ("這 is a mixed sentence with far too many English words 的描述", "wrong_language"),
    ("这段视频展示了一个男人在走路。", "boilerplate"),
    ("视频中，一个女孩在跳舞，灯光昏暗。", "boilerplate"),
    ("一个男人在走路。一只狗在奔跑。一个男人在走路。", "repetition"),
    ("很好很好很好很好很好很好", "repetition"),
)


@pytest.mark.parametrize("text", ORDINARY_EN)
def test_an_ordinary_english_caption_passes_every_check(text: str) -> None:
    assert check(text, "en", find_prompt("detailed.v1", "en").instructions) == "ok"


@pytest.mark.parametrize("text", ORDINARY_ZH)
def test_an_ordinary_chinese_caption_passes_every_check(text: str) -> None:
    assert check(text, "zh", find_prompt("detailed.v1", "zh").instructions) == "ok"


@pytest.mark.parametrize("text", ORDINARY_EN + ORDINARY_ZH)
def test_mending_leaves_an_ordinary_caption_as_it_is(text: str) -> None:
    assert mended(text) == text


@pytest.mark.parametrize(("text", "status"), BAD_EN)
def test_a_bad_english_caption_is_known_by_what_is_wrong(text: str, status: str) -> None:
    assert check(text, "en") == status


@pytest.mark.parametrize(("text", "status"), BAD_ZH)
def test_a_bad_chinese_caption_is_known_by_what_is_wrong(text: str, status: str) -> None:
    assert check(text, "zh") == status


@pytest.mark.parametrize(("text", "status"), [case for case in BAD_EN + BAD_ZH if case[1] != "empty"])
def test_a_check_that_is_not_made_lets_pass_what_it_would_find(text: str, status: str) -> None:
    language = "zh" if (text, status) in BAD_ZH else "en"
    assert check(text, language, unchecked=(status,)) != status


def test_a_caption_cut_short_by_the_bound_is_truncated() -> None:
    assert check("A man walks along the", "en", is_truncated=True) == "truncated"


def test_a_loop_that_ran_into_the_bound_is_a_repetition_since_more_tokens_would_not_help() -> None:
    assert check("a dog and " * 50, "en", is_truncated=True) == "repetition"


@pytest.mark.parametrize("language", ["en", "zh"])
@pytest.mark.parametrize("name", names())
def test_every_prompt_repeated_as_an_answer_is_a_leak(name: str, language: str) -> None:
    prompt = find_prompt(name, language)
    for part in sentences(prompt.filled("video")):
        if len(tokens(part)) > (30 if language == "zh" else 15):
            assert check(part, None, prompt.instructions, unchecked=("boilerplate", "refusal")) == "prompt_leak", part


@pytest.mark.parametrize(
    ("said", "left"),
    [
        ("The video shows a man walking.", "A man walking."),
        ("This short clip captures two dogs. The video then ends with a sunset.", "Two dogs. A sunset."),
        ("In this video, we see a man. He waves throughout the video.", "A man. He waves throughout."),
        ("In the image there are three cats on a wall.", "Three cats on a wall."),
        ("A man walks. The mood of the video is calm.", "A man walks. The mood is calm."),
        ("Sure! Here's a detailed description of the video:\n\nA man walks.", "A man walks."),
        ("Caption: A man walks.", "A man walks."),
        ("**A man** walks.\n\nA dog follows.", "A man walks. A dog follows."),
        ('"A man walks along a road."', "A man walks along a road."),
        ("<think>Is it a man?</think>\nA man walks.", "A man walks."),
        ("This is a short video of a cat asleep.", "A cat asleep."),
        ("这段视频展示了一个男人在走路。画面中，他拿着一本书。", "一个男人在走路。画面中，他拿着一本书。"),
        ("视频中，一个女孩在跳舞。", "一个女孩在跳舞。"),
        ("好的，以下是视频的描述：\n一只猫在睡觉。\n它动了一下。", "一只猫在睡觉。它动了一下。"),
    ],
)
def test_phrases_that_say_nothing_of_the_picture_are_taken_off(said: str, left: str) -> None:
    assert mended(said) == left
    assert check(left, "zh" if not said.isascii() else "en") == "ok"


@pytest.mark.parametrize("said", ["The video shows how bread is made.", "The video", "这张图片很美。"])
def test_what_could_not_stand_alone_is_left_whole(said: str) -> None:
    assert mended(said) == said


@given(st.text(max_size=400))
def test_no_text_breaks_the_checks_and_mending_only_takes_away(text: str) -> None:
    once = mended(text)
    assert len(once) <= len(text)
    assert check(once, "en") in {"ok", *STATUSES} and check(once, "zh") in {"ok", *STATUSES}


@pytest.mark.parametrize(
    "piece", ["in the video ", "the short ", "a", "“", '"', "是", "**", "Here is the x", "\n \n", "<|"]
)
def test_long_texts_of_one_piece_are_checked_quickly(piece: str) -> None:
    text = piece * (20_000 // len(piece))
    began = time.process_time()
    check(mended(text), "en", text)
    assert time.process_time() - began < 2


@given(
    st.lists(
        st.sampled_from(["red", "blue", "man", "dog", "road", "walks", "runs", "the", "a", "sky"]),
        min_size=2,
        max_size=12,
    )
)
def test_any_unit_said_six_times_in_a_row_is_a_repetition(unit: list[str]) -> None:
    assert repeats_itself(" ".join(unit * 6))


@given(st.integers(0, 60), st.randoms(use_true_random=False))
def test_words_that_are_all_different_are_no_repetition(count: int, random) -> None:
    words = [f"word{number}" for number in range(count)]
    random.shuffle(words)
    assert not repeats_itself(" ".join(words))


def test_the_template_captioner_never_fails_a_check() -> None:
    rows = [
        {"type": kind, "width_px": 640, "height_px": 360, "duration_s": 4.0, "motion": motion, "brightness": light}
        for kind in ("video", "image")
        for motion in (None, 0.1, 3.0, 20.0)
        for light in (None, 0.02, 0.2, 0.9)
    ]
    assert {check(describe(row), "en") for row in rows} == {"ok"}


def test_a_language_nobody_can_check_is_refused() -> None:
    with pytest.raises(ValueError, match="fr"):
        is_written_in("Bonjour tout le monde, il fait beau.", "fr")
