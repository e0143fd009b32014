"""Writing out what somebody wishes to see as the caption of that video, the kind of text a model was trained on.

Merging several descriptions of a clip is part of captioning: see `asking.Asking.rewrite`.
"""

from captioners.ask import Ask, AskFailed, Request
from captioners.asking import Asking, answered
from captioners.prompts import find_prompt

WISH = "wish"
"""What stands for a clip's id where there is no clip."""


def polish(ask: Ask, wish: str, prompt: str = "polish.v1", language: str = "en", max_tokens: int = 512) -> str:
    """Write out a user's prompt for sampling.

    Args:
        ask: a language model, with or without eyes.
        wish: what the user wrote.
        prompt: which prompt; `polish.v1` is made for this.
        language: of the result, `en` or `zh`.
        max_tokens: bound on a reply.

    Raises:
        AskFailed: the model gave nothing usable, twice.
        ValueError: no such prompt.
    """
    asked = find_prompt(prompt, language)
    request = Request(WISH, asked.filled(descriptions=[wish]), None, max_tokens, 0.0)
    outcome = answered(ask, request, asked, Asking(languages=(language,)))
    if outcome.status != "ok" or outcome.text is None:
        raise AskFailed(f"the prompt could not be written out ({outcome.error or outcome.status}): use it as it is")
    return outcome.text
