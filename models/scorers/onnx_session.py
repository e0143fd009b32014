"""Networks in ONNX Runtime: on one thread of the CPU, or on the GPU where there is one."""

from typing import Any

from models.errors import ModelError, one_line

TENSOR_OF_FOUR = bytes.fromhex("1216 0a14 0801 1210")
"""in ONNX's protobuf, behind a tensor's name: its type, a tensor of floats with four dimensions below 128"""
UNKNOWN = bytes.fromhex("0a02 1a00")
"""a dimension without a value, as long as one with a value below 128"""


def one_thread() -> Any:
    """Return the options of a session that computes on one thread and logs nothing."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 4
    return options


def open_session(content: bytes, device: str = "auto") -> Any:
    """Open a network.

    Args:
        content: of an ONNX file.
        device: `auto`, the GPU if this onnxruntime can use one; `cpu`; or `cuda`, with an index after a colon.

    Raises:
        ModelError: not readable as a network, or a GPU is asked for that cannot be used.
    """
    import onnxruntime

    has_gpu = "CUDAExecutionProvider" in onnxruntime.get_available_providers()
    kind, _, index = device.partition(":")
    if kind not in ("auto", "cpu", "cuda") or (index and not index.isdigit()):
        raise ModelError(f"device '{device}': give auto, cpu or cuda")
    providers: list[Any] = ["CPUExecutionProvider"]
    if kind == "cuda" or (kind == "auto" and has_gpu):
        providers.insert(0, ("CUDAExecutionProvider", {"device_id": int(index or 0)}))
    if kind == "cuda" and not has_gpu:
        raise ModelError(
            f"device '{device}': this onnxruntime has no CUDA; install onnxruntime-gpu, or take device=cpu"
        )
    try:
        session = onnxruntime.InferenceSession(content, one_thread(), providers=providers)
    except Exception as error:  # its classes of errors are private, and differ from version to version
        raise ModelError(
            f"not readable as an ONNX network ({one_line(error)[:120]}); install its package again"
        ) from None
    if kind == "cuda" and session.get_providers()[0] != "CUDAExecutionProvider":
        raise ModelError(f"device '{device}': onnxruntime cannot use the GPU here; take device=cpu or auto")
    return session


def with_free_sizes(content: bytes, names: tuple[str, ...]) -> bytes:
    """Return an ONNX file whose tensors of these names take any batch, height and width.

    Published files may state the sizes that they were exported with, (N, C, H, W), though the network takes any. The
    bytes of the sizes are replaced in place, so that no other package is needed to rewrite the file.

    Args:
        content: of the file.
        names: of inputs and outputs with four dimensions below 128.

    Raises:
        ModelError: there is no such tensor, or several.
    """
    changed = bytearray(content)
    for name in names:
        head = bytes([0x0A, len(name)]) + name.encode() + TENSOR_OF_FOUR
        place = content.find(head)
        if place < 0 or content.count(head) > 1:
            raise ModelError(f"the network has no tensor '{name}' of four stated sizes; install its package again")
        for axis in (0, 2, 3):
            begin = place + len(head) + 4 * axis
            changed[begin : begin + 4] = UNKNOWN
    return bytes(changed)
