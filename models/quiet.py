"""The libraries' own progress bars and notes, which would run through ours."""

import os


def quiet_libraries() -> None:
    """Keep diffusers, transformers and the hub from writing bars and notes; errors still come through."""
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    import diffusers
    import transformers

    diffusers.utils.logging.set_verbosity_error()
    diffusers.utils.logging.disable_progress_bar()
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
