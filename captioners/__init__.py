"""Captioners by the name that a recipe uses."""

from captioners.endpoint import Endpoint
from captioners.template import Template
from captioners.transformers import Transformers
from captioners.vllm import Vllm

CAPTIONERS: dict[str, type] = {
    "template": Template,
    "endpoint": Endpoint,
    "transformers": Transformers,
    "vllm": Vllm,
}
