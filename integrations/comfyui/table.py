"""The nodes there are; this table is the only list of them."""

from integrations.comfyui.clips import CLIP_NODE
from integrations.comfyui.models import LOADERS
from integrations.comfyui.ports import Node
from integrations.comfyui.samplers import SAMPLER_NODES
from integrations.comfyui.save import SAVE_NODE
from integrations.comfyui.score import SCORE_NODE
from integrations.comfyui.steering import STEERED

CATEGORY = "Selects"
NODES: tuple[Node, ...] = (*LOADERS, *SAMPLER_NODES, *STEERED, CLIP_NODE, SCORE_NODE, SAVE_NODE)
