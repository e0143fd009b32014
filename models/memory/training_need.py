"""What training adapters needs of a card, by how the frozen base is kept, predicted from shapes on the meta device."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from torch import nn

from models.memory.block_offload import BLOCKS_THERE
from models.memory.cost import Memory, RowsAtOnce, TrainedHow, training_memory
from models.memory.fp8 import fp8_layers, repeated_blocks
from models.transformers.architecture import Shape

CARDS_GB = (16, 24, 48, 80)
CARD_MARGIN = 1.1
"""a card must have over what is predicted: for the CUDA context, fragmentation and the workspaces of cuBLAS"""


@dataclass(frozen=True)
class BaseMode:
    """How a frozen base is kept.

    Attributes:
        name: for people.
        fp8: its blocks' linear layers take a byte a value.
        offload: its blocks wait in main memory.
    """

    name: str
    fp8: bool
    offload: bool


BASE_MODES: Sequence[BaseMode] = (
    BaseMode("bf16", False, False),
    BaseMode("fp8", True, False),
    BaseMode("bf16, blocks offloaded", False, True),
    BaseMode("fp8, blocks offloaded", True, True),
)
"""the fastest first"""


@dataclass(frozen=True)
class FrozenNeed:
    """Bytes of a frozen base.

    Attributes:
        device: on the device, at most.
        host: waiting in main memory.
    """

    device: int
    host: int


def frozen_need(network: nn.Module, size: int, *, fp8: bool, offload: bool) -> FrozenNeed:
    """Count the bytes of the parameters without gradients.

    Args:
        network: with its adapters, which do not count; on the meta device or loaded.
        size: bytes of a value that is not in 8 bits.
        fp8: as `models.memory.fp8.store_in_fp8` keeps weights.
        offload: as `models.memory.block_offload.offload_blocks` does.

    Raises:
        ModelError: the network has no repeated blocks, and one of the two needs them.
    """
    small = {id(layer.weight): layer.weight for _, _, layer in fp8_layers(network)} if fp8 else {}

    def bytes_of(module: nn.Module) -> int:
        frozen = (p for p in module.parameters() if not p.requires_grad)
        return sum(p.numel() * (1 if id(p) in small else size) for p in frozen)

    whole = bytes_of(network)
    # The layer that computes has its weight in the type it computes in; with another one that autograd's graph frees.
    cast = size * max((weight.numel() for weight in small.values()), default=0)
    if not offload:
        return FrozenNeed(whole + cast, 0)
    blocks = [bytes_of(block) for block in repeated_blocks(network)]
    there = min(BLOCKS_THERE, len(blocks)) * max(blocks)
    return FrozenNeed(whole - sum(blocks) + there + cast, sum(blocks))


@dataclass(frozen=True)
class CardRow:
    """One way to keep the base, for one shape of rows.

    Attributes:
        mode: how the base is kept.
        device_bytes: predicted on the card.
        host_bytes: of weights in page-locked main memory.
    """

    mode: BaseMode
    device_bytes: int
    host_bytes: int

    @property
    def smallest_card_gb(self) -> int | None:
        """The smallest of `CARDS_GB` that does; None: none of them."""
        wanted = self.device_bytes * CARD_MARGIN
        return next((card for card in CARDS_GB if wanted <= card * 1e9), None)


ADAPTERS = TrainedHow(checkpointing=True, half=True)
"""how adapters are trained where nothing else is said"""


def card_rows(
    network: nn.Module,
    shape: Shape,
    batch: RowsAtOnce,
    how: TrainedHow = ADAPTERS,
    beside: Callable[[Memory], Memory] = lambda memory: memory,
) -> list[CardRow]:
    """Predict for each way to keep the base what training its adapters takes.

    Args:
        network: with its adapters, on the meta device.
        shape: of the transformer, without adapters.
        batch: the micro-batch.
        how: of the training; where blocks are offloaded, activations are recomputed in any case.
        beside: adds what lies on the card besides, such as the VAE.
    """
    trained = sum(p.numel() for p in network.parameters() if p.requires_grad)
    found = []
    for mode in BASE_MODES:
        need = frozen_need(network, 2 if how.half else 4, fp8=mode.fp8, offload=mode.offload)
        kept = replace(how, checkpointing=how.checkpointing or mode.offload)
        memory = training_memory(shape, batch, trained, kept, frozen_bytes=need.device)
        found.append(CardRow(mode, beside(memory).total, need.host))
    return found
