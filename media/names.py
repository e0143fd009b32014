"""Which files are taken for videos and images, by their names alone."""

import os
from pathlib import Path

VIDEO_SUFFIXES = frozenset((
    *(".3g2", ".3gp", ".apng", ".asf", ".avi", ".divx", ".dv", ".f4v", ".flv", ".gif", ".h264", ".h265", ".hevc"),
    *(".ivf", ".m1v", ".m2t", ".m2ts", ".m2v", ".m4v", ".mk3d", ".mkv", ".mov", ".mp4", ".mpe", ".mpeg", ".mpg"),
    *(".mts", ".mxf", ".obu", ".ogm", ".ogv", ".qt", ".rm", ".rmvb", ".ts", ".vob", ".webm", ".wmv", ".y4m"),
))
IMAGE_SUFFIXES = frozenset((
    *(".avif", ".bmp", ".heic", ".jfif", ".jpe", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"),
))


def looks_like_image(path: Path) -> bool:
    """Return whether a file's name is that of a still image."""
    return path.suffix.lower() in IMAGE_SUFFIXES


def is_media_name(name: str) -> bool:
    """Return whether a name ends as that of a video or an image."""
    suffix = suffix_of(name)
    return suffix in VIDEO_SUFFIXES or suffix in IMAGE_SUFFIXES


def suffix_of(name: str) -> str:
    """Return the suffix of a name or path in lower case, with its dot; empty where there is none."""
    return os.path.splitext(name)[1].lower()
