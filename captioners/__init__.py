"""Captioners by the name that a recipe uses."""

from captioners.template import Template

CAPTIONERS: dict[str, type] = {"template": Template}
PLANNED = ("vllm", "endpoint", "transformers")
"""Names that a recipe may come to use; they are known so that a recipe naming one is told so."""
