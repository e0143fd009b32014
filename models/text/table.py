"""The kinds of text encoding and of image encoding there are, by the names that families call them."""

from collections.abc import Mapping

from models.text.clip_and_mt5 import V4_TEXT, V5_TEXT
from models.text.encoder import TextEncoder
from models.text.image_encoder import ClipEmbedding, ClipTokens, ImageEncoder
from models.text.qwen2_vl import Qwen2VL
from models.text.t5 import T5

TEXT_ENCODERS: Mapping[str, TextEncoder] = {kind.name: kind for kind in (Qwen2VL(), T5(), V4_TEXT, V5_TEXT)}
IMAGE_ENCODERS: Mapping[str, ImageEncoder] = {kind.name: kind for kind in (ClipEmbedding(), ClipTokens())}
