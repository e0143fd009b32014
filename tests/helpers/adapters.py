"""A small transformer, and adapters on it."""

import math

import torch
from torch import nn

from models.lora.adapters import add_lora, trainable
from models.lora.files import Factors, LoraWeights
from models.lora.form import AdapterForm
from models.transformers.easyanimate_v5 import EasyAnimate, EasyAnimateTransformer3DModel

TARGETS = EasyAnimate.lora_targets


QUERY = "transformer_blocks.0.attn1.to_q"


def build(seed: int = 0, heads: int = 2, dtype: torch.dtype = torch.float32) -> EasyAnimateTransformer3DModel:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = EasyAnimateTransformer3DModel(
            num_attention_heads=heads, attention_head_dim=16, in_channels=4, out_channels=4, patch_size=2, num_layers=2,
            mmdit_layers=2, time_embed_dim=16, text_embed_dim=16, add_norm_text_encoder=True,
        )  # fmt: skip
    return (model if dtype == torch.float32 else model.to(dtype)).eval()


def inputs(dtype: torch.dtype = torch.float32) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(7)
    latents = torch.randn(2, 4, 3, 8, 8, generator=generator).to(dtype)
    return latents, torch.tensor([100.0, 700.0]).to(dtype), torch.randn(2, 6, 16, generator=generator).to(dtype)


@torch.no_grad()
def output(model: nn.Module) -> torch.Tensor:
    latents, timesteps, text = inputs(next(model.parameters()).dtype)
    return model(latents, timesteps, encoder_hidden_states=text, return_dict=False)[0]


def train(model: nn.Module, steps: int = 3) -> None:
    optimizer = torch.optim.AdamW(trainable(model), lr=1e-2)
    latents, timesteps, text = inputs()
    for _ in range(steps):
        loss = (model(latents, timesteps, encoder_hidden_states=text, return_dict=False)[0] - 1).square().mean()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()


def base_state(model: nn.Module) -> dict[str, torch.Tensor]:
    """The base's own weights, under the names they have without adapters."""
    return {
        key.replace(".base_layer.", "."): tensor.clone()
        for key, tensor in model.state_dict().items()
        if ".lora_" not in key
    }


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


def trained(dora: bool = False, rank: int = 3, alpha: float | None = 5.0, seed: int = 0) -> nn.Module:
    model = build()
    add_lora(model, AdapterForm(rank, alpha, dora=dora), TARGETS, seed=seed)
    train(model)
    return model


def random_weights(model: nn.Module, seed: int, rank: int, alpha: float, dora: bool = False) -> LoraWeights:
    generator = torch.Generator().manual_seed(seed)
    layers = {}
    for name, layer in model.named_modules():
        if isinstance(layer, nn.Linear) and name.endswith(("to_q", "to_out.0", "add_v_proj")):
            down = torch.randn(rank, layer.in_features, generator=generator) / math.sqrt(layer.in_features)
            up = torch.randn(layer.out_features, rank, generator=generator) / 4
            magnitude = layer.weight.detach().norm(dim=1) * 1.3 if dora else None
            layers[name] = Factors(down, up, alpha, magnitude)
    return LoraWeights(layers)
