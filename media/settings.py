"""How clips are written: settings of the recipe's `cut` section."""

from dataclasses import dataclass
from typing import Literal

from core.settings import key


@dataclass(frozen=True)
class CutSettings:
    """How accepted clips become files."""

    mode: Literal["transcode", "copy", "none"] = key(
        "transcode", "transcode (x264, frame-exact), copy (streams as they are, from a keyframe on), none (virtual)"
    )
    crf: int = key(18, "x264 quality: 0 lossless, 18 visually so, 23 usual")
    preset: Literal["ultrafast", "superfast", "veryfast", "faster", "fast", "medium", "slow"] = key(
        "veryfast", "x264 speed against size"
    )
    short_side_px: int | None = key(None, "scale files down to this short side; null keeps the source's size")
    fps: float | None = key(None, "give files this frame rate, by time; null keeps every frame and its time")
    crop: Literal["none", "bars", "safe"] = key(
        "none",
        "none, bars (cut off those that the letterbox operator found), safe (keep the overlay operator's safe_box: "
        "the largest part of the picture without overlays and bars)",
    )
    crop_bars: bool = key(False, "true with crop=none: the same as crop=bars")
    min_safe_share: float = key(
        0.6, "crop=safe: a clip of which less than this share is left is rejected (rule on safe_share)", above=0, max=1
    )
    hdr: Literal["tone_map", "keep"] = key(
        "tone_map", "HDR sources: tone_map (to SDR, as they are scored), keep (10-bit HEVC with its own colours)"
    )
    audio: Literal["keep", "drop"] = key("keep", "keep the sound, as AAC or copied with its pictures, or drop it")

    def __post_init__(self) -> None:
        """Refuse values no encoder takes."""
        if not 0 <= self.crf <= 51:
            raise ValueError(f"crf {self.crf} is outside 0..51")
        if self.crop == "safe" and self.mode == "copy":
            raise ValueError("crop=safe needs mode=transcode: streams that are copied cannot be cropped")
        if (self.short_side_px is not None and self.short_side_px < 16) or (self.fps is not None and self.fps <= 0):
            raise ValueError("short_side_px must be at least 16, fps above 0")

    @property
    def crops(self) -> Literal["none", "bars", "safe"]:
        """What is cut off: `crop`, or bars where the older key `crop_bars` says so."""
        return "bars" if self.crop == "none" and self.crop_bars else self.crop
