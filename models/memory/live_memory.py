"""How much memory a computation's tensors take at their peak, counted while it runs, also where nothing is computed."""

import weakref
from collections.abc import Callable
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


def peak_bytes(run: Callable[[], object]) -> int:
    """Count the bytes of the tensors that a computation makes, at the moment when most of them are alive.

    What was there before is not counted, nor what a library takes for itself within one operation.

    Args:
        run: the computation; its result counts as long as it lives. On the `meta` device it costs next to nothing.
    """
    with _Counter() as counter:
        run()
    return counter.peak


class _Counter(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.now = self.peak = 0
        self.seen: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        before = {_key(tensor) for tensor in tree_leaves((args, kwargs)) if isinstance(tensor, torch.Tensor)}
        result = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, torch.Tensor) and _key(tensor) not in self.seen | before:
                storage = tensor.untyped_storage()
                self.seen.add(_key(tensor))
                self.now += storage.nbytes()
                weakref.finalize(storage, self._forget, _key(tensor), storage.nbytes())
        self.peak = max(self.peak, self.now)
        return result

    def _forget(self, key: int, size: int) -> None:
        self.seen.discard(key)
        self.now -= size


def _key(tensor: torch.Tensor) -> int:
    return int(tensor.untyped_storage()._cdata)
