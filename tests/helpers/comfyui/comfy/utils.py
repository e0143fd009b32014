"""Progress as ComfyUI shows it."""

SHOWN: list[tuple[int, int]] = []


class ProgressBar:
    """Notes what it is told."""

    def __init__(self, total: int):
        self.total = total

    def update_absolute(self, value: int, total: int | None = None) -> None:
        SHOWN.append((value, total if total is not None else self.total))
