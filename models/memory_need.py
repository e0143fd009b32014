"""What sampling needs of a device's memory, predicted from shapes before anything is loaded."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

MIB = 2**20


@dataclass(frozen=True)
class PartNeed:
    """One part's bytes.

    Attributes:
        weights: all of them.
        weights_8_bits: with 8-bit storage, where the mode has it.
        largest_layer: of one layer, as it computes.
        working: activations at their peak.
        working_tiled: likewise, in tiles.
    """

    weights: int
    weights_8_bits: int
    largest_layer: int
    working: int
    working_tiled: int


@dataclass(frozen=True)
class Need:
    """What each part needs.

    Attributes:
        parts: by name: text_encoder, transformer, vae.
    """

    parts: Mapping[str, PartNeed]

    def peak(
        self,
        mode: Literal["none", "model_cpu_offload", "model_cpu_offload_and_qfloat8", "sequential_cpu_offload"],
        vae_tiling: bool,
    ) -> int:
        """Give the bytes on the device at the worst moment.

        Args:
            mode: see `models.memory`.
            vae_tiling: whether the VAE works in tiles.
        """
        working = {name: part.working_tiled if vae_tiling else part.working for name, part in self.parts.items()}
        if mode == "none":
            return sum(part.weights for part in self.parts.values()) + max(working.values())
        if mode == "model_cpu_offload":
            return max(part.weights + working[name] for name, part in self.parts.items())
        if mode == "model_cpu_offload_and_qfloat8":
            return max(
                part.weights_8_bits + (part.largest_layer if part.weights_8_bits < part.weights else 0) + working[name]
                for name, part in self.parts.items()
            )
        # The layer that computes and the one fetched meanwhile; the VAE stays whole.
        return max(
            (part.weights if name == "vae" else 2 * part.largest_layer) + working[name]
            for name, part in self.parts.items()
        )
