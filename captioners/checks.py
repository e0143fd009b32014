"""What may be wrong with a caption; a status other than `ok` rejects the clip."""


def check(text: str | None) -> str:
    """Give `ok`, or the word for what is wrong: `empty` (nothing, or nothing but white space)."""
    if text is None or not text.strip():
        return "empty"
    return "ok"
