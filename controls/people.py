"""People and their 133 points, by DWPose (Yang et al., ICCV workshops 2023, arXiv 2307.15880) in ONNX Runtime.

YOLOX (Ge et al., arXiv 2107.08430) finds the people, RTMPose (Jiang et al., arXiv 2303.07399) the points of each, as
COCO-WholeBody counts them. Each network is given the channels in the order it was trained with: YOLOX blue first,
RTMPose red first.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np

GRAY = 114
"""what is beside the picture in the detector's input"""
STRIDES = (8, 16, 32)
OVERLAP, LEAST_SCORE, SURE_SCORE = 0.45, 0.1, 0.3
"""of the detector: boxes that share more are one; those looked at; those of people that are taken"""
PADDING = 1.25
"""times a person's box is what is looked at for its points"""
MEAN = np.array([123.675, 116.28, 103.53], np.float32)
DEVIATION = np.array([58.395, 57.12, 57.375], np.float32)
PARTS_OF_PX = 2
"""places that the network tells apart within a pixel of its input (SimCC's split ratio)"""


@dataclass(frozen=True, eq=False)
class People:
    """The people of a picture.

    Attributes:
        points: float32 (N, 133, 2), x and y in pixels.
        scores: float32 (N, 133), how sure each point is; about 0..1.
    """

    points: np.ndarray
    scores: np.ndarray


FindPeople = Callable[[np.ndarray], People]


def letterboxed(rgb: np.ndarray, side_px: tuple[int, int]) -> tuple[np.ndarray, float]:
    """Return the detector's input, float32 (3, h, w) of 0..255, blue first, and how much the picture was scaled.

    Args:
        rgb: uint8 (H, W, 3).
        side_px: height and width; the picture fills it from the upper left as far as its aspect lets it.
    """
    height, width = rgb.shape[:2]
    scale = min(side_px[0] / height, side_px[1] / width)
    inner = max(1, int(width * scale)), max(1, int(height * scale))
    canvas = np.full((*side_px, 3), GRAY, np.uint8)
    canvas[: inner[1], : inner[0]] = cv2.resize(rgb, inner, interpolation=cv2.INTER_LINEAR)[..., ::-1]
    return canvas.transpose(2, 0, 1).astype(np.float32), scale


def boxes_of(output: np.ndarray, side_px: tuple[int, int], scale: float) -> np.ndarray:
    """Turn the detector's output into the boxes of people.

    Args:
        output: float32 (A, 85): of each cell of the grids of 8, 16 and 32 px, how far the box's middle is from the
            cell in cells, the logarithm of its size in cells, how much there is a thing, and of which of 80 kinds.
        side_px: height and width of the input.
        scale: from `letterboxed`.

    Returns:
        float32 (N, 4): left, top, right, bottom in pixels of the picture, the surest first.
    """
    cells, steps = _cells(side_px)
    middles, sizes = (output[:, :2] + cells) * steps, np.exp(np.minimum(output[:, 2:4], 10)) * steps
    scores = output[:, 4] * output[:, 5]  # the first kind is a person
    some = scores > LEAST_SCORE
    boxes = np.concatenate([middles - sizes / 2, sizes], axis=1)[some]
    scores = scores[some]
    kept = np.asarray(cv2.dnn.NMSBoxes(boxes.tolist(), scores.tolist(), LEAST_SCORE, OVERLAP), np.int64).reshape(-1)
    kept = kept[scores[kept] > SURE_SCORE]
    corners = np.concatenate([boxes[kept, :2], boxes[kept, :2] + boxes[kept, 2:]], axis=1)
    return (corners / scale).astype(np.float32)


def _cells(side_px: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Return where the cells of all grids are, (A, 2) x and y in cells, and their sizes in px, (A, 1)."""
    places, steps = [], []
    for step in STRIDES:
        y, x = np.mgrid[: side_px[0] // step, : side_px[1] // step]
        places.append(np.stack([x, y], axis=2).reshape(-1, 2))
        steps.append(np.full((x.size, 1), step))
    return np.concatenate(places), np.concatenate(steps)


def looked_at(box: np.ndarray, size_px: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Return the middle and the size, both (2,) x and y in px, of what is looked at for a box's points.

    Args:
        box: left, top, right, bottom.
        size_px: width and height of the network's input, whose aspect it has.
    """
    middle, size = (box[:2] + box[2:]) / 2, (box[2:] - box[:2]) * PADDING
    aspect = size_px[0] / size_px[1]
    width = max(size[0], size[1] * aspect, 1.0)
    return middle, np.array([width, width / aspect])


def cropped(rgb: np.ndarray, middle: np.ndarray, size: np.ndarray, size_px: tuple[int, int]) -> np.ndarray:
    """Return the network's input, float32 (3, h, w), normalised as ImageNet is; black beside the picture.

    Args:
        rgb: uint8 (H, W, 3).
        middle: of what is looked at.
        size: likewise.
        size_px: width and height of the input.
    """
    scale = size_px[0] / size[0]
    shift = np.array(size_px) / 2 - scale * middle
    matrix = np.array([[scale, 0, shift[0]], [0, scale, shift[1]]])
    crop = cv2.warpAffine(rgb, matrix, size_px, flags=cv2.INTER_LINEAR)
    return ((crop - MEAN) / DEVIATION).transpose(2, 0, 1).astype(np.float32)


def decoded(simcc_x: np.ndarray, simcc_y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Decode RTMPose's two distributions of each point: the place of each maximum, and the lower of the two.

    Args:
        simcc_x: float32 (N, K, 2 w).
        simcc_y: float32 (N, K, 2 h).

    Returns:
        float32 (N, K, 2) x and y in pixels of the input, and float32 (N, K) scores.
    """
    places = np.stack([simcc_x.argmax(axis=2), simcc_y.argmax(axis=2)], axis=2).astype(np.float32)
    scores = np.minimum(simcc_x.max(axis=2), simcc_y.max(axis=2))
    return places / PARTS_OF_PX, scores


def open_people(detector: str, keypoints: str, device: str) -> FindPeople:
    """Open both networks.

    Args:
        detector: weights of YOLOX, as `models.weights.named.weights_file` takes them.
        keypoints: of RTMPose.
        device: see `open_session`.

    Returns:
        The function from uint8 (H, W, 3) RGB to the people in it.

    Raises:
        ModelError: weights that cannot be had or are not such networks, or a device that cannot be used.
    """
    from models.scorers.onnx_session import open_session
    from models.weights.named import weights_file

    paths = [weights_file(named) for named in (detector, keypoints)]
    finder, reader = (open_session(path.read_bytes(), device) for path in paths)
    side_px, input_px = (_input_size(session, path) for session, path in zip((finder, reader), paths, strict=True))

    def find(rgb: np.ndarray) -> People:
        given, scale = letterboxed(rgb, side_px)
        output = finder.run(None, {finder.get_inputs()[0].name: given[None]})[0][0]
        size_px = input_px[::-1]
        parts = [looked_at(box, size_px) for box in boxes_of(output, side_px, scale)]
        points, scores = np.zeros((len(parts), 133, 2), np.float32), np.zeros((len(parts), 133), np.float32)
        for place, (middle, size) in enumerate(parts):  # one by one, as the published file takes them
            crop = cropped(rgb, middle, size, size_px)
            simcc = reader.run(None, {reader.get_inputs()[0].name: crop[None]})
            found, sure = decoded(*simcc[:2])
            points[place] = found[0] / np.array(size_px) * size + middle - size / 2
            scores[place] = sure[0]
        return People(points, scores)

    return find


def _input_size(session: Any, path: Any) -> tuple[int, int]:
    """Return the height and width that a network states for its input.

    Raises:
        ModelError: it states none.
    """
    from models.errors import ModelError

    shape = session.get_inputs()[0].shape
    if len(shape) == 4 and all(isinstance(side, int) for side in shape[2:]):
        return shape[2], shape[3]
    raise ModelError(f"{path}: no network of DWPose's (its input is {shape}); fetch it again")
