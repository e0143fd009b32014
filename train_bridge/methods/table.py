"""The training methods there are, and in what they differ; each one's loss is in a file of its own beside this one."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class MethodKind:
    """What everybody but the loss needs to know of a method.

    Attributes:
        trains: the network whose weights are the result, `vae` or `transformer`.
        condition: what the transformer sees beside the noise: masks with known pixels, or control; None: nothing.
        from_prompts: rows are prompts, and what is trained on is sampled.
    """

    trains: str
    condition: Literal["masks", "control"] | None = None
    from_prompts: bool = False

    @property
    def trains_vae(self) -> bool:
        """Whether the VAE is trained: it needs no captions, no cache and no noise schedule."""
        return self.trains == "vae"


METHODS = {
    "text_to_video": MethodKind("transformer"),
    "inpaint": MethodKind("transformer", condition="masks"),
    "control": MethodKind("transformer", condition="control"),
    "vae": MethodKind("vae"),
    "reward": MethodKind("transformer", from_prompts=True),
}
