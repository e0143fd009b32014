"""How pixels become latents and latents become tokens: the shapes that a family of models takes."""

from dataclasses import dataclass, field
from typing import NamedTuple


class LatentShape(NamedTuple):
    """Latent frames, height and width of a video."""

    frames: int
    height: int
    width: int


@dataclass(frozen=True)
class LatentGrid:
    """The compression of a video VAE and the patches of its transformer.

    A causal VAE takes a sequence of any length whose first latent frame stands for one frame and each further one for
    `frames_per_latent`: n+1 latents are 4n+1 frames where that is 4, and n latents n frames where it is 1, which is
    a VAE of images. A VAE of slices takes one frame, or whole slices of `frames_per_slice`; where that is one more
    than a multiple of `frames_per_latent`, each slice is causal in itself (9 frames are 3 latents), else each latent
    stands for `frames_per_latent` frames (8 frames are 2 latents).

    Attributes:
        frames_per_latent: frames in a latent frame after the first.
        pixels_per_latent: pixels along one side of a latent.
        latents_per_patch: latents along one side of a token.
        frames_per_slice: frames that are encoded together, apart from all others; 0: the VAE is causal.
        tokens_per_square: tokens along one side of the squares that the transformer looks at together.
    """

    frames_per_latent: int
    pixels_per_latent: int
    latents_per_patch: int
    frames_per_slice: int = 0
    tokens_per_square: int = 1

    @property
    def side_px(self) -> int:
        """What both sides of a picture must be multiples of."""
        return self.pixels_per_latent * self.latents_per_patch * self.tokens_per_square

    @property
    def latents_per_slice(self) -> int:
        """Latent frames of a slice; 0 where the VAE is causal."""
        return -(-self.frames_per_slice // self.frames_per_latent)

    @property
    def frame_step(self) -> int:
        """Frames between one valid length of a video and the next."""
        return self.frames_per_slice or self.frames_per_latent

    @property
    def rule(self) -> str:
        """The valid numbers of frames, in words of messages."""
        if self.frames_per_slice:
            return f"{self.frames_per_slice}n or 1"
        return f"{self.frames_per_latent}n+1" if self.frames_per_latent > 1 else "at least 1"

    def latent_frames(self, num_frames: int) -> int:
        """Return how many latent frames a number of frames becomes."""
        if self.frames_per_slice and num_frames > 1:
            return max(1, num_frames // self.frames_per_slice * self.latents_per_slice)
        return (num_frames - 1) // self.frames_per_latent + 1

    def num_frames(self, latent_frames: int) -> int:
        """Return how many frames a number of latent frames stands for; of slices, those that are whole."""
        if self.frames_per_slice:
            return max(1, latent_frames // self.latents_per_slice * self.frames_per_slice)
        return (latent_frames - 1) * self.frames_per_latent + 1

    def frames_of_latents(self, num_frames: int) -> tuple[int, ...]:
        """Return how many frames each latent frame of a video stands for; their sum is the video's length."""
        if num_frames == 1:
            return (1,)
        first = 1 if not self.frames_per_slice else (self.frames_per_slice - 1) % self.frames_per_latent + 1
        rest = (self.frames_per_latent,)
        if self.frames_per_slice:
            return (first, *rest * (self.latents_per_slice - 1)) * (num_frames // self.frames_per_slice)
        return (first, *rest * (self.latent_frames(num_frames) - 1))

    def takes_frames(self, num_frames: int) -> bool:
        """Return whether a video of so many frames can be encoded."""
        if self.frames_per_slice:
            return num_frames == 1 or (num_frames >= 1 and num_frames % self.frames_per_slice == 0)
        return num_frames >= 1 and (num_frames - 1) % self.frames_per_latent == 0

    def nearest_frames(self, num_frames: int) -> tuple[int, int]:
        """Return the longest valid length that is no longer, and the next one; from 1 on."""
        if self.frames_per_slice:
            whole = max(0, num_frames) // self.frames_per_slice * self.frames_per_slice
            return max(1, whole), whole + self.frames_per_slice
        low = max(0, num_frames - 1) // self.frames_per_latent * self.frames_per_latent + 1
        return low, low + self.frames_per_latent

    def shortest_with(self, latent_frames: int) -> int:
        """Return the shortest valid length that has at least so many latent frames."""
        if self.frames_per_slice and latent_frames > 1:
            return -(-latent_frames // self.latents_per_slice) * self.frames_per_slice
        return (max(1, latent_frames) - 1) * self.frames_per_latent + 1

    def longest_with(self, latent_frames: int) -> int:
        """Return the longest valid length that has at most so many latent frames; 0 and less where there is none."""
        if self.frames_per_slice and latent_frames > 0:
            return self.num_frames(latent_frames)
        return (latent_frames - 1) * self.frames_per_latent + 1

    def latent_shape(self, num_frames: int, height_px: int, width_px: int) -> LatentShape:
        """Return the latent frames, height and width of a video."""
        side = self.pixels_per_latent
        return LatentShape(self.latent_frames(num_frames), height_px // side, width_px // side)

    def tokens(self, num_frames: int, height_px: int, width_px: int) -> int:
        """Return the video tokens of a transformer for a video."""
        frames, height, width = self.latent_shape(num_frames, height_px, width_px)
        return frames * (height // self.latents_per_patch) * (width // self.latents_per_patch)


MAGVIT = LatentGrid(frames_per_latent=4, pixels_per_latent=8, latents_per_patch=2)
"""EasyAnimate V5 and V5.1: MagViT of 4×8×8, patches of 2×2."""


@dataclass(frozen=True, order=True)
class Bucket:
    """A shape that videos are brought to: frames, height and width, in pixels.

    Attributes:
        num_frames: of a video; 1 is an image.
        height_px: of each frame.
        width_px: of each frame.
        grid: what the VAE makes of it; it is the same for all buckets of a run, and no part of a bucket's name.

    Raises:
        ValueError: a number of frames or a side that the grid does not take.
    """

    num_frames: int
    height_px: int
    width_px: int
    grid: LatentGrid = field(default=MAGVIT, compare=False, repr=False)

    def __post_init__(self) -> None:
        """Refuse shapes that the models cannot take."""
        grid = self.grid
        if not grid.takes_frames(self.num_frames):
            low, high = grid.nearest_frames(self.num_frames)
            raise ValueError(f"{self.num_frames} frames are not {grid.rule}; the nearest are {low} and {high}")
        side = grid.side_px
        if self.height_px < side or self.width_px < side or self.height_px % side or self.width_px % side:
            raise ValueError(f"{self.width_px}x{self.height_px} px: both sides must be multiples of {side}")

    @property
    def latent_shape(self) -> LatentShape:
        """Latent frames, height and width."""
        return self.grid.latent_shape(self.num_frames, self.height_px, self.width_px)

    @property
    def tokens(self) -> int:
        """Video tokens of a transformer."""
        return self.grid.tokens(self.num_frames, self.height_px, self.width_px)

    def __str__(self) -> str:
        """Return `49x512x896` (frames, height, width)."""
        return f"{self.num_frames}x{self.height_px}x{self.width_px}"
