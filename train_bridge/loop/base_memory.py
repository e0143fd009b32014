"""How a frozen base is kept while its adapters train: the config's `memory` section, applied and predicted."""

import torch
from torch import nn

from core.errors import UserError
from models.memory.block_offload import offload_blocks
from models.memory.fp8 import store_in_fp8
from models.memory.training_need import frozen_need
from train_bridge.config import TrainConfig


def check_base(config: TrainConfig) -> None:
    """Check that the keys of `memory` go together with the others.

    Raises:
        UserError: with the key and what to change.
    """
    memory = config.memory
    asked = [name for name in ("fp8_base", "offload_blocks") if getattr(memory, name)]
    if not asked:
        return
    where = f"memory.{asked[0]}"
    if config.kind.trains_vae or not config.lora.rank:
        raise UserError("is for a frozen base", field=where, fix="train adapters with lora.rank=64, or set it to false")
    if config.launch.sharding == "fsdp" and config.launch.workers > 1:
        raise UserError("fsdp divides the base already", field=where, fix=f"set launch.sharding=ddp, or {where}=false")
    if memory.fp8_base and config.lora.dora:
        raise UserError(
            "memory.fp8_base: DoRA needs the norms of the exact weights at every step; "
            "set lora.dora=false, or memory.fp8_base=false"
        )
    if memory.offload_blocks and not config.train.gradient_checkpointing:
        raise UserError(
            "memory.offload_blocks: without recomputation every fetched block stays for the backward pass; "
            "set train.gradient_checkpointing=true"
        )


def keep_base(network: nn.Module, config: TrainConfig, device: torch.device) -> None:
    """Keep a network's frozen weights as the config says; the adapters are in it already.

    Where its blocks are to be offloaded, all the rest is moved to the device.

    Raises:
        ModelError: a weight is not finite, or the network has no repeated blocks.
    """
    if config.memory.fp8_base:
        store_in_fp8(network)
    if config.memory.offload_blocks:
        offload_blocks(network, device)
    if config.memory.fp8_base or config.memory.offload_blocks:
        # DDP would compare and send what all workers read from the same files, in types that it cannot send.
        frozen = [name for name, parameter in network.named_parameters() if not parameter.requires_grad]
        nn.parallel.DistributedDataParallel._set_params_and_buffers_to_ignore_for_model(network, frozen)


def base_bytes(config: TrainConfig, network: nn.Module) -> int | None:
    """Predict the frozen weights' bytes on the device, for a network on the meta device; None: nothing special."""
    memory = config.memory
    if not (memory.fp8_base or memory.offload_blocks):
        return None
    size = 2 if config.train.precision == "bf16" else 4
    return frozen_need(network, size, fp8=memory.fp8_base, offload=memory.offload_blocks).device
