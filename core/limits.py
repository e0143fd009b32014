"""What one source may cost before it is given up, and how often what the world breaks is tried again."""

from dataclasses import dataclass

from core.settings import key


@dataclass(frozen=True)
class Limits:
    """Bounds that keep one source from taking the machine, and faults of the world from taking the run."""

    tries: int = key(2, "times a source that crashed or hung its decoder is tried in all, alone in its process")
    kills: int = key(5, "times a decoder that others killed (the system does, when memory runs out) is tried in all")
    silence_s: float = key(30.0, "seconds without a sign of life after which a decoder is killed")
    task_s: float = key(7200.0, "seconds that decoding one segment or cutting one clip may take, alive or not")
    memory_gb: float = key(4.0, "memory a decoder process may allocate")
    max_pixels: int = key(134_217_728, "largest picture, width times height")
    max_frames: int = key(10_000_000, "most frames of one source")
    max_duration_s: float = key(172_800.0, "longest source, from its first frame to its last")
    max_streams: int = key(64, "most streams (pictures, sound, subtitles) of one source")
    max_file_gb: float = key(256.0, "largest source file")
    storage_tries: int = key(4, "times a read or write that the storage refused (no disk full) is tried in all")
    storage_pause_s: float = key(1.0, "seconds before the second try; each later pause is twice as long")
    worker_deaths: int = key(8, "deaths of one model worker, or of the workers of one task, after which the run stops")

    def __post_init__(self) -> None:
        """Refuse limits under which nothing can run."""
        if min(self.tries, self.kills, self.storage_tries) < 1:
            raise ValueError("tries, kills and storage_tries must be at least 1")
        if min(self.storage_pause_s, self.worker_deaths) < 0:
            raise ValueError("storage_pause_s and worker_deaths must not be negative")
        bounds = (self.silence_s, self.task_s, self.memory_gb, self.max_pixels, self.max_frames)
        if min(*bounds, self.max_duration_s, self.max_streams, self.max_file_gb) <= 0:
            raise ValueError("every bound must be above 0")
