"""A sampler's networks: loaded when they are wanted, and placed where the memory mode has them."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from models.accelerator import own_device
from models.lora.adapters import apply_lora, fuse
from models.memory.modes import AUTO, MODES, Choice, Placement, decide, place
from models.memory.sampling_need import Part
from models.text.encoder import LoadedText
from models.text.table import IMAGE_ENCODERS, TEXT_ENCODERS
from models.transformers.architecture import Architecture
from models.transformers.conditioning import Conditioning, moved, of_text
from models.transformers.table import build_transformer
from models.vae.table import load_vae
from sampling.checks import Job
from sampling.model_facts import ModelFacts
from sampling.need import need_of
from sampling.request import Options


class Networks:
    """The parts of one pipeline. What is not needed at once is not loaded at once, unless it is to be kept.

    Attributes:
        device: where they compute.
        dtype: of weights and activations.
        choice: the memory mode, once it is decided.
        notes: what the user should know about it, a line each.
    """

    def __init__(self, facts: ModelFacts, options: Options):
        """Load nothing yet."""
        self._facts, self._options = facts, options
        self.device = own_device()
        self.dtype = torch.bfloat16 if self.device.type == "cuda" else torch.float32
        self.choice: Choice | None = None
        self.notes: list[str] = []
        self._family: Architecture | None = None
        self._encoder: LoadedText | None = None
        self._vae: Any = None
        self._placement: Placement | None = None

    def decide(self, jobs: Sequence[Job]) -> None:
        """Choose the memory mode by what the largest job needs; done once, before anything is loaded."""
        if self.choice is not None:
            return
        if self._options.memory != AUTO:  # to predict takes a second or two, and would change nothing
            mode = next(mode for mode in MODES if mode == self._options.memory)
            self.choice = Choice(mode, self._options.vae_tiling, f"{mode}, as asked for")
            return
        need = need_of(
            self._facts, jobs, half=self.dtype == torch.bfloat16, encoder_stays=self._options.keep_text_encoder
        )
        self.choice = decide(self._options.memory, self.device, need, vae_tiling=self._options.vae_tiling)
        self.notes.append(f"memory: {self.choice.why}")

    def encode(self, texts: Sequence[str]) -> Mapping[str, Conditioning]:
        """Encode texts, each by itself: how one is encoded must not depend on the others.

        Returns:
            Their parts, a batch of one each, on the CPU.
        """
        if self._options.keep_text_encoder:
            placement = self.placement
        else:
            self._encoder = self._load_encoder()
            placement = self._place({"text_encoder": self._encoder.model})
        assert self._encoder is not None
        for text, cut in zip(texts, self._encoder.truncated(texts), strict=True):
            if cut:
                self.notes.append(f"longer than {self._encoder.positions} tokens, its end is not seen: {text}")
        with placement.computing("text_encoder"):
            cpu = torch.device("cpu")
            embeddings = {text: moved(of_text(self._encoder.encode_parts([text])), cpu, self.dtype) for text in texts}
        if not self._options.keep_text_encoder:
            self._encoder = None
        return embeddings

    def encode_image(self, picture: np.ndarray) -> Mapping[str, torch.Tensor]:
        """Encode a start image (H, W, 3) uint8 to tokens with their mask, on the CPU; nothing where there are none."""
        folder = self._facts.image_encoder
        if folder is None or self._facts.family.image_encoder is None:
            return {}
        encoder = IMAGE_ENCODERS[self._facts.family.image_encoder].load(folder, self.dtype, self.device)
        return {name: part.cpu() for name, part in encoder.encode_parts(picture[None]).items()}

    @property
    def placement(self) -> Placement:
        """Transformer and VAE (and text encoder, where it is kept), loaded and placed."""
        if self._placement is None:
            parts: dict[Part, Any] = {"transformer": self._load_transformer(), "vae": self._load_vae()}
            if self._options.keep_text_encoder:
                self._encoder = self._load_encoder()
                parts["text_encoder"] = self._encoder.model
            self._placement = self._place(parts)
            self.notes.extend(self._placement.notes)
        return self._placement

    @property
    def family(self) -> Architecture:
        """How to call the transformer."""
        assert self._family is not None
        return self._family

    @property
    def vae(self) -> Any:
        """The autoencoder."""
        return self._load_vae()

    def _place(self, parts: Mapping[Part, Any]) -> Placement:
        assert self.choice is not None
        caching = self._options.cache_threshold is not None
        return place(parts, self.choice.mode, self.device, vae_tiling=self.choice.vae_tiling, caching=caching)

    def _load_encoder(self) -> LoadedText:
        kind = TEXT_ENCODERS[self._facts.family.text_encoder]
        encoder = kind.load(self._facts.bundle.folder, int(self._facts.hints["text_tokens"]), self.dtype)
        encoder.model.eval()
        return encoder

    def _load_vae(self) -> Any:
        if self._vae is None:
            self._vae = load_vae(self._facts.bundle.vae, self.dtype).eval()
        return self._vae

    def _load_transformer(self) -> Any:
        self._family, transformer = build_transformer(str(self._facts.bundle.transformer), self.dtype)
        for place_, (lora, weights) in enumerate(self._facts.loras):
            apply_lora(transformer, weights, f"lora_{place_}", lora.scale)
        if self._options.fuse_loras and self._facts.loras:
            fuse(transformer)
        return transformer.eval()
