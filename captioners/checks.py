"""What may be wrong with a caption; a status other than `ok` rejects the clip.

Everything here is a pure function of the text, over tables of English and Chinese phrases. What stands in quotation
marks is what the picture says, not what the model says, and is left out of every check but the first two.
"""

import re
from collections import Counter
from functools import lru_cache

STATUSES = (
    "empty",
    "too_long",
    "repetition",
    "truncated",
    "refusal",
    "prompt_leak",
    "wrong_language",
    "boilerplate",
)
"""In the order in which they are looked for; the first one found is told."""

_FLAGS = re.IGNORECASE
_HAN = "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
_QUOTED = re.compile(r"\"[^\"]{0,400}\"|“[^”]{0,400}”|「[^」]{0,400}」|『[^』]{0,400}』|《[^》]{0,400}》|‘[^’]{0,400}’")
_ONE_HAN = re.compile(f"[{_HAN}]")
_TOKEN = re.compile(rf"[{_HAN}]|(?:(?![{_HAN}])\w)+")
_SENTENCE = re.compile(r"(?<=[.!?])\s+|(?<=[。！？])|\n+")

_SIGHT = r"(?:video|footage|clip|image|picture|photo(?:graph)?)s?"
_ASSISTANT = r"(?:an? )?(?:ai|artificial intelligence|language model|assistant|text-based)"
_REFUSALS = re.compile(
    r"^(?:"
    r"(?:i['’]m|i am)(?: very| so| really)? sorry|sorry,? (?:but )?i\b|(?:i )?apologi[sz]e|my apologies"
    r"|unfortunately,? i\b|(?:i['’]m|i am) (?:not able|unable)|i (?:can['’]?t|cannot|can not|won['’]t|could ?n['’]?t)\b"
    rf"|i (?:do not|don['’]t) (?:have|see|feel)|i (?:see|have) no {_SIGHT}|as {_ASSISTANT}\b"
    r"|(?:please|kindly|could you) (?:provide|upload|share|attach|send)"
    r"|(?:很|非常)?抱歉|对不起|不好意思|很遗憾|我(?:无法|不能|没有办法|没法|看不到)|作为(?:一个|一名)?(?:AI|人工智能|语言模型)"
    r"|请(?:您)?(?:提供|上传|发送)|您?没有(?:提供|上传)"
    r")"
    rf"|\bas {_ASSISTANT} (?:language )?model\b"
    rf"|\bno {_SIGHT} (?:is|are|was|were|has been|have been) (?:provided|attached|uploaded|shared|given)\b"
    rf"|\b(?:unable|not able) to (?:view|access|process|open|analy[sz]e) (?:the|this|that|your|any) {_SIGHT}",
    _FLAGS,
)
_LEAKS = re.compile(
    r"<\|[\w/ ]{1,30}\|>|</?(?:image|video|s|think|answer|system|user|assistant|start_of_turn|end_of_turn)>|\[/?INST\]"
    r"|<\w{2,12}_pad>|^\s*(?:user|assistant|system|human|用户|助手|系统)\s*[:：]|```|\{(?:context|noun|measure|descriptions)\}",
    _FLAGS | re.MULTILINE,
)

# What a sentence about the picture begins with, where that which follows can stand alone.
_SHOWS = (
    r"(?:shows?|depicts?|features?|captures?|displays?|presents?|portrays?|showcases?|illustrates?|is of"
    r"|(?:begins?|starts?|opens?) (?:with|by showing)|(?:ends?|closes?|concludes?) with)(?!\w)"
)
_SHOWS_ZH = "(?:主要)?(?:展示|显示|呈现|描绘|展现|记录|拍摄|描述)了?"
_OPENING = re.compile(
    r"^(?:overall, )?(?:"
    rf"(?:in|throughout) (?:this|the) (?:short |given |provided )?(?:{_SIGHT}|scene)"
    r"(?:, (?:(?:we|you|one) (?:can )?see |there (?:is|are) )?| (?:we|you|one) (?:can )?see | there (?:is|are) )"
    rf"|(?:this|the) (?:short |given |provided |entire |first |opening )?(?:{_SIGHT}|scene)(?: sequence| clip)?"
    rf" (?:(?:then|also|now) |\w+ly )?{_SHOWS} ?"
    rf"|(?:this|it) is an? (?:\w+ ){{0,2}}{_SIGHT} (?:of|showing|that shows) "
    rf"|在?(?:这|该|本)(?:段|个|张|幅|则)?短?(?:视频|影片|画面|图片|照片|图像|片段)"
    rf"(?:[中里][，,]?(?:我们)?(?:可以)?(?:看到|看见|{_SHOWS_ZH})?|{_SHOWS_ZH})"
    rf"|(?:视频|影片|图片|图像)[中里][，,]?|(?:视频|画面|图片|影片|图像){_SHOWS_ZH}"
    r")",
    _FLAGS,
)
_WITHIN = re.compile(
    r",? (?:in|of|during) (?:(?:this|the) (?:entire |whole |short )?(?:video|footage)(?: clip)?|this clip)\b", _FLAGS
)
_THROUGHOUT = re.compile(
    r"\b(throughout) (?:this|the) (?:entire |whole |short )?(?:video|footage|clip)(?: clip)?\b", _FLAGS
)
_PREAMBLE = re.compile(
    r"^(?:(?:sure|certainly|of course|absolutely|okay|ok)\b[!,.]? ?)?"
    r"(?:here(?:['’]s| is| are) (?:the|an?|your|my)\b[^:：\n]{0,80}[:：]"
    r"|(?:(?:detailed|short|training|final|video|image) )*(?:caption|description)[:：])\s*"
    r"|^(?:sure|certainly|of course|absolutely)[!,.] "
    r"|^(?:好的|当然(?:可以)?)[，,!！。]\s*(?:以下是[^:：\n]{0,40}[:：])?\s*"
    r"|^以下是[^:：\n]{0,40}[:：]\s*|^(?:(?:详细)?描述|标题|字幕)[:：]\s*",
    _FLAGS,
)
_BOILERPLATE = re.compile(
    r"\b(?:in|of|during|throughout) (?:(?:this|the) (?:video|footage)|this clip)\b"
    r"|^in th(?:e|is) (?:image|picture|photo)(?=,| (?:we|you|one|there)\b)"
    r"|^(?:this|the) (?:video|footage|image|picture|photo(?:graph)?|clip) (?:\w+ly )?"
    r"(?:shows?|depicts?|features?|captures?|displays?|presents?|portrays?|showcases?|illustrates?|then|also|ends?"
    r"|begins?|starts?|opens?|appears?|seems?|contains?|provides?|offers?|conveys?|highlights?|focus(?:es)?)\b"
    r"|^(?:this|it) is an? (?:\w+ ){0,2}(?:video|clip|image|picture|photo(?:graph)?)\b"
    r"|^(?:sure|certainly|of course)[!,.]|^here(?:['’]s| is) (?:the|an?|your) [^.]{0,30}(?:caption|description)"
    r"|(?:这|该|本)(?:段|个|张|幅)?(?:视频|影片|图片|照片)|^(?:视频|图片|影片)[中里]|^(?:视频|图片|影片)(?:展示|显示|呈现|描绘)",
    _FLAGS,
)

# The commonest words of English, and those of languages in the same script that English does not have.
_ENGLISH = frozenset(
    re.findall(
        r"\w+",
        "the a an and of is are with on in to at by his her its their as while from that this over into near behind",
    )
)
_FOREIGN = frozenset(
    re.findall(
        r"\w+",
        "el los las una del por con está están mientras que y le les un des du et est sont dans avec sur une au aux "
        "der das den dem ein eine einen und ist sind mit auf im zu il lo gli della dello di che sono nel nella um uma "
        "na dos das em com são para é",
    )
)

MIN_LETTERS = 12
LOOP_UNIT = 12
"""words in the longest unit whose repetition is looked for"""
REPEATED_SHARE = 0.2
"""of n-grams that occurred before, above which a text repeats itself; 0.15 to 0.20 in Gopher's rules (Rae et al. 2021,
table A1, for characters of duplicate 5- to 10-grams)"""
MIN_REPETITION_TOKENS = 24
LEAKED_WORDS, LEAKED_HAN = 8, 16
"""A run so long that the reply shares with the prompt's own instructions is copied from them."""


def check(
    text: str | None,
    language: str | None = None,
    instructions: str = "",
    unchecked: tuple[str, ...] = (),
    *,
    is_truncated: bool = False,
) -> str:
    """Return `ok`, or the first of `STATUSES` that is wrong with a caption.

    Args:
        text: the caption.
        language: `en` or `zh`, what it should be written in; null: any.
        instructions: the prompt without what was reported the clip, to find its words in the caption.
        is_truncated: the model was stopped before it had ended.
        unchecked: statuses that are let pass; `empty` cannot be.
    """
    if text is None or not text.strip():
        return "empty"
    spoken = _QUOTED.sub(" ", text)
    found = {
        "repetition": repeats_itself(spoken),
        "truncated": is_truncated,
        "refusal": refuses(spoken),
        "prompt_leak": leaks(text, spoken, instructions),
        "wrong_language": language is not None and not is_written_in(spoken, language),
        "boilerplate": any(_BOILERPLATE.search(sentence) for sentence in sentences(spoken)),
    }
    return next((status for status in STATUSES if found.get(status) and status not in unchecked), "ok")


def without_thoughts(text: str) -> str:
    """Return what a model says after it has thought aloud."""
    return text.split("</think>")[-1].strip()


def mended(text: str) -> str:
    """Take off what says nothing of the picture: thoughts, `Sure, here is …:`, marks of layout, `The video shows`.

    Nothing else is changed, but that the text becomes one paragraph.
    """
    text = without_thoughts(text)
    text = re.sub(r"\*\*([^*\n]{1,300})\*\*", r"\1", text)
    text = re.sub(r"^#{1,6} +", "", text, flags=re.MULTILINE)
    text = _PREAMBLE.sub("", text).strip()
    if len(text) > 2 and (text[0], text[-1]) in {('"', '"'), ("“", "”")} and not set('"“”') & set(text[1:-1]):
        text = text[1:-1].strip()
    text = re.sub(rf"(?<=[{_HAN}，。！？；：])\s*\n\s*|\s*\n\s*(?=[{_HAN}])", "", text)
    text = re.sub(r"\s*\n\s*", " ", text)
    text = "".join(_without_opening(part) for part in re.split(rf"({_SENTENCE.pattern})", text) if part)
    return _WITHIN.sub("", _THROUGHOUT.sub(r"\1", text))


def sentences(text: str) -> list[str]:
    """Divide a text at the ends of its sentences, English or Chinese."""
    return [part.strip() for part in _SENTENCE.split(text) if part.strip()]


def refuses(spoken: str) -> bool:
    """Tell a model's excuse from a description, which never says `I`."""
    return any(_REFUSALS.search(sentence) for sentence in sentences(spoken))


def leaks(text: str, spoken: str, instructions: str) -> bool:
    """Return whether a caption holds a chat's markers or a long run of the prompt's own words."""
    if _LEAKS.search(text):
        return True
    return bool(_runs(spoken) & _runs_of_prompt(instructions))


def is_written_in(spoken: str, language: str) -> bool:
    """Return whether a text is in a language, by its script and, for English, by its commonest words.

    A few foreign names do no harm; texts of less than `MIN_LETTERS` letters are believed.
    """
    letters = [c for c in spoken if c.isalpha()]
    han = len(re.findall(f"[{_HAN}]", spoken))
    if len(letters) < (MIN_LETTERS if language == "en" else MIN_LETTERS // 3):
        return True
    if language == "zh":
        kana = len(re.findall("[\u3040-\u30ff]", spoken))
        words = len(re.findall(r"[A-Za-zÀ-ɏ\u0400-\u04ff\uac00-\ud7af]+", spoken))
        return han > 2 * words and kana < 0.1 * (han + kana)
    if language == "en":
        latin = sum(c < "ɐ" for c in letters)
        words_said = Counter(tokens(spoken))
        english, foreign = (sum(words_said[w] for w in table) for table in (_ENGLISH, _FOREIGN))
        return latin >= 0.8 * len(letters) and not (foreign >= 3 and foreign > english)
    raise ValueError(f"no check for language '{language}' (known: en, zh)")


def repeats_itself(spoken: str) -> bool:
    """Tell a model that goes round in circles: a unit said again and again, or much of the text said before."""
    said = tokens(spoken)
    if _loops(said):
        return True
    long = [tuple(tokens(sentence)) for sentence in sentences(spoken)]
    if any(times > 1 and len(sentence) >= 5 for sentence, times in Counter(long).items()):
        return True
    is_han = sum(_is_han(token) for token in said) > len(said) / 2
    n = 7 if is_han else 4  # single characters stand for half a word
    grams = [tuple(said[i : i + n]) for i in range(len(said) - n + 1)]
    return len(said) >= MIN_REPETITION_TOKENS and 1 - len(set(grams)) / len(grams) > REPEATED_SHARE


def tokens(text: str) -> list[str]:
    """Return words in small letters; of Chinese, single characters."""
    return _TOKEN.findall(text.casefold())


def _loops(said: list[str]) -> bool:
    """Find a unit of up to `LOOP_UNIT` words said four times in a row (three, where it has five words or more)."""
    for size in range(1, LOOP_UNIT + 1):
        wanted = size * (2 if size >= 5 else 3)
        run = 0
        for i in range(size, len(said)):
            run = run + 1 if said[i] == said[i - size] else 0
            if run >= wanted and not all(token.isdigit() for token in said[i - size + 1 : i + 1]):
                return True
    return False


def _runs(text: str) -> set[tuple[str, ...]]:
    """Return the runs of words, or of Chinese characters, that are too long to be said twice by chance."""
    said = tokens(text)
    is_han = [_is_han(token) for token in said]
    return {
        tuple(said[i : i + n])
        for n, han in ((LEAKED_WORDS, False), (LEAKED_HAN, True))
        for i in range(len(said) - n + 1)
        if all(kind == han for kind in is_han[i : i + n])
    }


_runs_of_prompt = lru_cache(maxsize=64)(_runs)


def _is_han(token: str) -> bool:
    return len(token) == 1 and bool(_ONE_HAN.match(token))


def _without_opening(sentence: str) -> str:
    found = _OPENING.match(sentence)
    rest = sentence[found.end() :].lstrip(" ,，:：") if found else ""
    if found is None or len(tokens(rest)) < 2 or re.match(r"(?:that|how|what|why|where|who)\b", rest):
        return sentence
    return rest[0].upper() + rest[1:]
