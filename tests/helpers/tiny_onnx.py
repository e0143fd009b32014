"""Tiny ONNX networks, written as protobuf by hand: `onnx` is no dependency, and they are a few numbers."""

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from models.weights import wheels

FLOAT, INT, INTS = 1, 2, 7
"""types of attributes"""


def _varint(value: int) -> bytes:
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def _number(field: int, value: int) -> bytes:
    return _varint(field << 3) + _varint(value)


def _message(field: int, *parts: bytes | str) -> bytes:
    content = b"".join(part.encode() if isinstance(part, str) else part for part in parts)
    return _varint(field << 3 | 2) + _varint(len(content)) + content


def tensor(name: str, values: np.ndarray) -> bytes:
    """An initializer of float32 or int64."""
    kind = 7 if values.dtype == np.int64 else 1
    dims = b"".join(_number(1, side) for side in values.shape)
    return _message(5, dims, _number(2, kind), _message(8, name), _message(9, values.tobytes()))


def node(op: str, inputs: Sequence[str], output: str, **attributes: int | Sequence[int]) -> bytes:
    found = [_message(1, name) for name in inputs] + [_message(2, output), _message(4, op)]
    for name, value in attributes.items():
        held = _number(3, value) if isinstance(value, int) else b"".join(_number(8, item) for item in value)
        found.append(_message(5, _message(1, name), held, _number(20, INT if isinstance(value, int) else INTS)))
    return _message(1, *found)


def value(field: int, name: str, dims: Sequence[int | str]) -> bytes:
    """An input (11) or output (12) of float32."""
    sides = [_message(1, _message(2, side) if isinstance(side, str) else _number(1, side)) for side in dims]
    return _message(field, _message(1, name), _message(2, _message(1, _number(1, 1), _message(2, *sides))))


def numbers(field: int, name: str, dims: Sequence[int | str]) -> bytes:
    """An input or output of int64."""
    sides = [_message(1, _message(2, side) if isinstance(side, str) else _number(1, side)) for side in dims]
    return _message(field, _message(1, name), _message(2, _message(1, _number(1, 7), _message(2, *sides))))


def model(*parts: bytes) -> bytes:
    return _number(1, 8) + _message(7, *parts, _message(2, "tiny")) + _message(8, _message(1, ""), _number(2, 13))


def redness(slope: float) -> bytes:
    """A network of open_nsfw's layout: its second output is the logistic function of `slope` times red's excess."""
    weights = np.zeros((3, 2), np.float32)
    weights[2, 1] = slope  # blue, green, red
    return model(
        value(11, "input", ["batch", 224, 224, 3]),
        value(12, "output", ["batch", 2]),
        tensor("weights", weights),
        node("ReduceMean", ["input"], "mean", axes=[1, 2], keepdims=0),
        node("MatMul", ["mean", "weights"], "both"),
        node("Softmax", ["both"], "output", axis=1),
    )


def blocks(log_size: float) -> bytes:
    """A network of CenterFace's layout, sizes stated as in its file: red says how sure it is of a face at each block
    of 4x4, green and blue times `log_size` the logarithms of the height and width."""
    parts = [value(11, "input.1", [10, 3, 32, 32])]
    maps = {
        "537": [[1, 0, 0]], "538": [[0, log_size, 0], [0, 0, log_size]],
        "539": [[0, 0, 0]] * 2, "540": [[0, 0, 0]] * 10,
    }  # fmt: skip
    for name, rows in maps.items():
        kernel = np.array(rows, np.float32)[:, :, None, None] / (255 * 16) * np.ones((1, 1, 4, 4), np.float32)
        parts += [
            value(12, name, [10, len(rows), 8, 8]),
            tensor(f"w{name}", kernel.astype(np.float32)),
            node("Conv", ["input.1", f"w{name}"], name, kernel_shape=[4, 4], strides=[4, 4]),
        ]
    return model(*parts)


def loudness(gain: float) -> bytes:
    """A network of Silero VAD's layout for sequences: a window is speech by the hyperbolic tangent of its power."""
    state = [(11, "h"), (11, "c"), (12, "hn"), (12, "cn")]
    return model(
        value(11, "input", ["sequence", 576]),
        *(value(field, name, [1, 1, 128]) for field, name in state),
        value(12, "speech_probs", ["sequence"]),
        tensor("gain", np.array([gain], np.float32)),
        node("Mul", ["input", "input"], "power"),
        node("ReduceMean", ["power"], "mean", axes=[1], keepdims=0),
        node("Mul", ["mean", "gain"], "scaled"),
        node("Tanh", ["scaled"], "speech_probs"),
        node("Identity", ["h"], "hn"),
        node("Identity", ["c"], "cn"),
    )


def looked_up(table: np.ndarray) -> bytes:
    """A network of MiniLM's layout: the state of each piece is its row of a table, float32 (V, D)."""
    return model(
        *(numbers(11, name, ["batch", "sequence"]) for name in ("input_ids", "attention_mask", "token_type_ids")),
        value(12, "last_hidden_state", ["batch", "sequence", table.shape[1]]),
        tensor("table", table),
        node("Gather", ["table", "input_ids"], "last_hidden_state", axis=0),
    )


def install(folder: Path, patch: pytest.MonkeyPatch, slope: float = 0.05, log_size: float = 2.0) -> None:
    """Put packages with tiny networks in the place of those that operators read; their import fails."""
    patch.syspath_prepend(str(folder))
    networks = (("NSFW", redness(slope)), ("CENTERFACE", blocks(log_size)), ("SILERO", loudness(1e4)))
    for name, content in networks:
        weights, module = getattr(wheels, name), f"tiny_{name.lower()}"
        (folder / module / weights.file).parent.mkdir(parents=True)
        (folder / module / "__init__.py").write_text("raise ImportError('not to be imported')")
        (folder / module / weights.file).write_bytes(content)
        patch.setattr(wheels, name, replace(weights, module=module, sha256=hashlib.sha256(content).hexdigest()))
