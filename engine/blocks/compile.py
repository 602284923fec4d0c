"""The blocks' functions compiled one by one, with the eager ones behind them.

Each of the four functions (:class:`engine.blocks.setup.BlockFunctions`) becomes one graph per kind of call, whatever
the number of blocks: weights are arguments. Token count and batch are marked as free, so one set of graphs serves all
buckets; a batch of one has its own. Code lies on disk, the next start reads it. Compiling happens in the engine's
thread, on the first step: nothing here is imported, let alone compiled, before a run trains. Whatever goes wrong, the
run goes on eagerly and :attr:`CompiledBlocks.reason` says why.

Shape suffixes: B samples, L tokens of both streams, T tokens of the text, N = B times tokens of a stream, r rank.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import wraps
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from engine.blocks.setup import BlockFunctions, BlockSetup
from engine.memory.frozen import DoubleWeights, SingleWeights

GRAPHS = 64
"""Graphs a function may have before torch gives up on it: kinds of adapters, precisions and what is kept multiply."""

MARKED_CALLS = 256
"""Calls of each function for which free sizes are marked, per shape; afterwards its graph is there."""


def wanted(setting: str, device: torch.device, pieces: str) -> tuple[bool, str]:
    """Whether blocks are to be compiled under ``memory.compile`` = auto, on or off, and why not where one may ask.

    auto leaves them alone where fused kernels are in use: what is left to fuse is narrow, and the first step of each
    new configuration would wait a minute for it.
    """
    if setting == "on":
        return True, ""
    if setting == "off" or device.type != "cuda":
        return False, ""
    if pieces == "triton":
        return False, "blocks run own fused kernels and are not compiled as well; memory.compile = on does both"
    return True, ""


class CompiledBlocks:
    """Four compiled functions; when one cannot be compiled, all fall back to the eager ones for good.

    Attributes:
        functions: what a transformer takes as its ``functions``.
        reason: why the eager ones are in use; empty while the compiled ones are.
    """

    def __init__(self, functions: BlockFunctions, backend: Any = "inductor") -> None:
        """Nothing is compiled yet: each function is when it is first called."""
        self.reason = self._untold = ""
        self.functions = BlockFunctions(
            **{name: self._guarded(name, eager, backend) for name, eager in vars(functions).items()}
        )

    def take_reason(self) -> str:
        """The reason, the first time it is asked for after a failure; empty otherwise."""
        untold, self._untold = self._untold, ""
        return untold

    def _guarded(self, name: str, eager: Callable[..., Any], backend: Any) -> Callable[..., Any]:
        compiled = torch.compile(eager, fullgraph=True, backend=backend)
        settle = _thread_settings()
        failures = _failures()
        marks = _Marks()
        proven = False

        @wraps(eager)
        def run(*arguments: Any) -> Any:
            nonlocal proven
            if self.reason:
                return eager(*arguments)
            # Hidden states carry requires_grad inside a hand-written backward: a difference that is none here.
            arguments = tuple(item.detach() if isinstance(item, Tensor) else item for item in arguments)
            marks.mark(arguments)
            settle()
            try:
                with torch.no_grad():
                    found = compiled(*arguments)
            except torch.OutOfMemoryError:
                raise
            except failures as err:
                self._fail(name, err)
            except RuntimeError as err:
                # Code that was made but does not run here; afterwards an error is the step's own.
                if proven:
                    raise
                self._fail(name, err)
            else:
                proven = True
                return found
            return eager(*arguments)

        return run

    def _fail(self, name: str, err: Exception) -> None:
        cause = getattr(err, "inner_exception", None) or err  # torch wraps what a backend raised
        line = (str(cause).strip().splitlines() or [""])[0][:300]
        self.reason = f"blocks run eagerly: compiling {name} failed ({type(cause).__name__}: {line})"
        self._untold = self.reason


def _thread_settings() -> Callable[[], None]:
    """What sets torch's compiler up in the calling thread: its settings are each thread's own, and on a GPU the
    backward compiles in a thread of autograd's. Costs two look-ups where that was done before.
    """
    # Imported here: a second of import, which runs that do not compile need not pay.
    import torch._dynamo
    from torch.fx.experimental import _config as shapes

    limits: Any = torch._dynamo.config

    def settle() -> None:
        if limits.recompile_limit < GRAPHS:
            limits.recompile_limit = GRAPHS
        if shapes.use_duck_shape:
            # As many image tokens as text tokens are a coincidence of one bucket, not a rule to build code on.
            shapes.use_duck_shape = False

    return settle


def _failures() -> tuple[type[Exception], ...]:
    """Whatever says that something could not be compiled."""
    from torch._dynamo.exc import FailOnRecompileLimitHit, TorchDynamoException
    from torch._inductor.exc import CppCompileError, InvalidCxxCompiler

    return TorchDynamoException, FailOnRecompileLimitHit, CppCompileError, InvalidCxxCompiler


class _Marks:
    """Tells the compiler which sizes of a function's arguments are free."""

    def __init__(self) -> None:
        self._calls: dict[tuple[int, ...], int] = {}

    def mark(self, arguments: tuple[Any, ...]) -> None:
        """Mark batch (above one) and tokens in every activation among ``arguments``."""
        from torch._dynamo import maybe_mark_dynamic

        batch, length = arguments[0].shape[:2]
        setup = next(item for item in arguments if isinstance(item, BlockSetup))
        shape = (batch, length, setup.text)
        calls = self._calls[shape] = self._calls.get(shape, 0) + 1
        if calls > MARKED_CALLS:
            return
        image = length - setup.text
        tokens = {length, image, batch * length, batch * image}
        tokens |= {batch * setup.text} if batch > 1 else set()
        for tensor in _activations(arguments):
            for axis in _free_axes(tensor, tokens):
                maybe_mark_dynamic(tensor, axis)
            if batch > 1 and tensor.ndim > 2 and tensor.shape[0] == batch:
                maybe_mark_dynamic(tensor, 0)


def _activations(arguments: tuple[Any, ...]) -> Iterator[Tensor]:
    for argument in arguments:
        if isinstance(argument, SingleWeights | DoubleWeights | BlockSetup):
            continue
        yield from (leaf for leaf in pytree.tree_leaves(argument) if isinstance(leaf, Tensor))


def _free_axes(tensor: Tensor, tokens: set[int]) -> list[int]:
    """The axis on which a tensor counts tokens: (N, r), (B, L, D), (B, H, L), (B, H, L, K), (B, 1, 1, L).

    By place and size, so that a width that happens to equal a token count stays fixed.
    """
    places = {2: (0,), 3: (1, 2), 4: (2, 3)}.get(tensor.ndim, ())
    return [axis for axis in places if tensor.shape[axis] in tokens and tensor.shape[axis] > 1][:1]
