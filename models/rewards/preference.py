"""What people prefer, by CLIP-H/14 towers that were trained on their choices: HPS v2.1 and PickScore.

Both give the cosine of a frame and the prompt. HPS v2.1 (Wu et al., arXiv 2306.09341) fits the whole frame into the
square, PickScore (Kirstain et al., arXiv 2305.01569) cuts its middle out; PickScore's published score is the cosine
times 100. Good pictures lie at about 0.2 to 0.35, so `best` is what published reward LoRAs pull towards, and is not
reached.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F

from models.errors import ModelError, one_line
from models.rewards.reward import Judge
from models.scorers.clip_pictures import as_pictures, prepared
from models.weights.find import find_weights
from models.weights.state_dict import DAMAGED

SIDE_PX = 224


@dataclass(frozen=True)
class Preference:
    """Cosine of each frame and the prompt in a CLIP-H/14 of open_clip.

    Attributes:
        weights: name in `models.weights.table`.
        whole: fit the whole frame into the square.
        file: another file of weights than the published one.
        architecture: open_clip's name.
    """

    weights: str
    whole: bool
    file: str | None = None
    architecture: str = "ViT-H-14"
    best: float = 1.0
    scale: float = 1.0
    min_frames: int = 1

    @property
    def needs(self) -> tuple[str, ...]:
        """The tower's weights."""
        return () if self.file else (self.weights,)

    def load(self, device: torch.device, weights: str | None) -> Judge:
        """Load the tower in float32, its texts truncated at 77 tokens as in its training."""
        import open_clip

        path = Path(self.file) if self.file else find_weights(self.weights, weights)
        network = open_clip.create_model(self.architecture, precision="fp32", device=str(device))
        try:
            network.load_state_dict(open_clip_names(_read(path)))
        except (RuntimeError, KeyError, AttributeError) as error:
            raise ModelError(
                f"{path}: not the weights of a {self.architecture} ({one_line(error)[:160]}); fetch it again: "
                f"run_pipeline.py weights fetch {self.weights}"
            ) from None
        network = network.requires_grad_(False).eval()
        tokenizer = open_clip.get_tokenizer(self.architecture)

        def judge(frames: torch.Tensor, prompts: Sequence[str]) -> torch.Tensor:
            shown = network.encode_image(prepared(as_pictures(frames), SIDE_PX, whole=self.whole))
            shown = F.normalize(shown, dim=-1).view(frames.shape[0], frames.shape[2], -1)
            with torch.no_grad():
                said = F.normalize(network.encode_text(tokenizer(list(prompts)).to(device)), dim=-1)
            return torch.einsum("btd,bd->bt", shown, said)

        return judge


def open_clip_names(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Return a CLIP's weights under open_clip's names; those of transformers' CLIPModel are renamed.

    transformers keeps query, key and value apart, open_clip one above the other; its projections lie transposed.
    """
    if "visual_projection.weight" not in state:
        return {name: tensor.float() for name, tensor in state.items()}
    found: dict[str, torch.Tensor] = {
        "logit_scale": state["logit_scale"],
        "text_projection": state["text_projection.weight"].T,
        "visual.proj": state["visual_projection.weight"].T,
        "token_embedding.weight": state["text_model.embeddings.token_embedding.weight"],
        "positional_embedding": state["text_model.embeddings.position_embedding.weight"],
        "visual.class_embedding": state["vision_model.embeddings.class_embedding"],
        "visual.positional_embedding": state["vision_model.embeddings.position_embedding.weight"],
        "visual.conv1.weight": state["vision_model.embeddings.patch_embedding.weight"],
    }
    norms = (
        ("text_model.final_layer_norm", "ln_final"),
        ("vision_model.pre_layrnorm", "visual.ln_pre"),
        ("vision_model.post_layernorm", "visual.ln_post"),
    )
    for theirs, ours in norms:
        found |= {f"{ours}.{end}": state[f"{theirs}.{end}"] for end in ("weight", "bias")}
    for tower, prefix in (("text_model", "transformer"), ("vision_model", "visual.transformer")):
        layers = sum(name.startswith(f"{tower}.encoder.layers.") and name.endswith("mlp.fc1.bias") for name in state)
        for layer in range(layers):
            theirs, ours = f"{tower}.encoder.layers.{layer}", f"{prefix}.resblocks.{layer}"
            for end in ("weight", "bias"):
                parts = [state[f"{theirs}.self_attn.{part}_proj.{end}"] for part in "qkv"]
                found[f"{ours}.attn.in_proj_{end}"] = torch.cat(parts)
                found[f"{ours}.attn.out_proj.{end}"] = state[f"{theirs}.self_attn.out_proj.{end}"]
                for their, our in (("layer_norm1", "ln_1"), ("layer_norm2", "ln_2"), ("mlp.fc1", "mlp.c_fc")):
                    found[f"{ours}.{our}.{end}"] = state[f"{theirs}.{their}.{end}"]
                found[f"{ours}.mlp.c_proj.{end}"] = state[f"{theirs}.mlp.fc2.{end}"]
    return {name: tensor.float() for name, tensor in found.items()}


def _read(path: Path) -> dict[str, torch.Tensor]:
    """Read a state dict without running code."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (*DAMAGED, SafetensorError) as error:
        raise ModelError(f"{path}: not readable as weights ({one_line(error)[:120]}); fetch the file again") from None
    inner: dict[str, torch.Tensor] = state.get("state_dict", state)
    return inner
