"""Interruption and memory as ComfyUI has them."""

INTERRUPT_AT: list[int] = []
UNLOADED: list[bool] = []


class InterruptProcessingException(BaseException):
    """A person has cancelled the run."""


def throw_exception_if_processing_interrupted() -> None:
    if INTERRUPT_AT:
        INTERRUPT_AT[0] -= 1
        if INTERRUPT_AT[0] <= 0:
            INTERRUPT_AT.clear()
            raise InterruptProcessingException


def unload_all_models() -> None:
    UNLOADED.append(True)


def soft_empty_cache() -> None:
    """Do nothing."""
