"""What `comfy_api.latest` offers."""

from dataclasses import dataclass
from fractions import Fraction
from types import SimpleNamespace
from typing import Any

from comfy_api.latest import io as io


class ComfyExtension:
    """What an entry point returns."""

    async def on_load(self) -> None:
        """Be told that it was loaded."""

    async def get_node_list(self) -> list[type]:
        raise NotImplementedError


@dataclass
class VideoComponents:
    """Frames, sound and rate of a video."""

    images: Any
    audio: Any
    frame_rate: Fraction


class VideoFromComponents:
    """A VIDEO of frames."""

    def __init__(self, components: VideoComponents):
        self._components = components

    def get_components(self) -> VideoComponents:
        return self._components

    def get_duration(self) -> float:
        return float(len(self._components.images) / self._components.frame_rate)


class VideoFromFile(VideoFromComponents):
    """A VIDEO of a file, or of a stretch of it."""

    def __init__(self, file: str, components: VideoComponents):
        super().__init__(components)
        self._file = file

    def get_stream_source(self) -> str:
        return self._file


Types = SimpleNamespace(VideoComponents=VideoComponents)
InputImpl = SimpleNamespace(VideoFromComponents=VideoFromComponents, VideoFromFile=VideoFromFile)
