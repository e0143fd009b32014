"""Nodes for ComfyUI: link or copy this folder into its `custom_nodes`, or name the checkout in a `.pth` file.

Where ComfyUI has the V3 interface (`comfy_api.latest`) the nodes are declared by it, else by that of before. ComfyUI
imports this file by its path; the rest of the program is found beside the folder that the link leads to, or installed.
"""

import importlib.util
import sys
from pathlib import Path

HOME = Path(__file__).resolve().parents[2]


def _find_program() -> None:
    """Let this process import the program.

    Raises:
        ImportError: it is neither installed nor around this folder, or another package has one of its names.
    """
    if importlib.util.find_spec("integrations") is None and (HOME / "run_pipeline.py").is_file():
        sys.path.append(str(HOME))
    if importlib.util.find_spec("integrations") is None:
        raise ImportError(
            f"{HOME}: the program is not here; link integrations/comfyui of a checkout into custom_nodes, or "
            "install selects-video into ComfyUI's Python"
        )
    from integrations.comfyui.conflicts import check_names

    check_names()


_find_program()

from integrations.comfyui.v3 import has_v3  # noqa: E402 - only now can it be found

if has_v3():
    from integrations.comfyui.v3 import comfy_entrypoint  # noqa: F401
else:
    from integrations.comfyui.v1 import NODE_CLASS_MAPPINGS, NODE_DISPLAY_NAME_MAPPINGS  # noqa: F401
