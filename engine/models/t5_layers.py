"""T5's encoder over many captions, layer after layer: each layer is read from its file, used by all, and dropped.

T5-XXL's 9.5 GB never lie on the device together: at most two layers do (772 MB in 16 bit), the one in use and the
next, which a thread reads meanwhile. Captions pass through a layer one at a time. Kernels may round differently for
other batch sizes, so a caption's states do not depend on the captions it is encoded with, nor on how many passes
over the file are made. States that wait for the next layer lie on the device while they are few, then in host memory.

Shapes: N captions, T tokens, C width.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import psutil
import torch
from torch import Tensor, nn

from engine.errors import ModelFileError
from engine.models.detect import listed
from engine.models.header import TensorInfo
from engine.models.parts import Part
from engine.models.t5_net import T5Layer, T5Norm, attention_bias
from engine.models.text_layout import T5Sizes
from engine.models.weights import DTYPES, load_weights
from engine.text import safe_text

ToldFn = Callable[[int, int], None]
"""Told (done, of) in captions times layers, between any two of them; what it raises ends the pass."""

NEAR_BYTES = 128 * 2**20
"""States that stay on a GPU between layers, 32 captions of 512 tokens in 16 bit; the others wait in host memory."""

HOST_SHARE = 4
"""One part in this many of the free host memory may hold waiting states."""

MOST_AT_ONCE = {"cpu": 32}
"""Captions of one pass, by kind of device; a stop loses the pass it falls into, and a processor takes minutes."""


def captions_at_once(each: int, kind: str, free: int) -> int:
    """How many captions share one pass over the file: as many as ``free`` bytes of host memory hold.

    Args:
        each: bytes of one caption's states.
        kind: the device's type.
        free: bytes of host memory that nobody uses.
    """
    return max(1, min(free // HOST_SHARE // each, MOST_AT_ONCE.get(kind, 2**31)))


class T5Encoder:
    """T5's encoder; its output is the final-norm state of every token.

    Attributes:
        passes: how often the file has been read, for whoever wants to know what captions cost.
        bytes_read: bytes of weights read in all.
        remark: why the last pass was slower than it might have been; empty where nothing held it up.
        sparing: whether to have one layer on the device at a time, and no states that wait.
    """

    sparing = False

    def __init__(
        self, part: Part, sizes: T5Sizes, device: torch.device | str, dtype: torch.dtype, fingerprint: str
    ) -> None:
        """Nothing is read yet.

        Raises:
            ModelFileError: a tensor has a type that no weight has.
        """
        unusable = [info for info in (*part.tensors.values(), *part.scales.values()) if info.dtype not in DTYPES]
        if unusable:
            raise ModelFileError(
                "A model file does not fit the model",
                f"{safe_text(part.header.path, 400)}: unusable dtype: "
                + listed(f"{info.name} ({info.dtype})" for info in unusable),
                "It may be a damaged conversion; get the fp16, bf16 or fp8 file of the same model.",
            )
        self.sizes = sizes
        self.fingerprint = fingerprint
        self.device = torch.device(device)
        self.dtype = dtype
        self.passes = 0
        self.bytes_read = 0
        self.remark = ""
        self._part = part
        # What is read comes through a stream of its own: on the common one a copy would wait for all captions of the
        # layer before. One stream for all layers, so that each takes the memory of one that was dropped.
        self._stream = torch.cuda.Stream(self.device) if self.device.type == "cuda" else None

    def captions_at_once(self, tokens: int) -> int:
        """Captions of ``tokens`` tokens that one pass over the file takes, by the host memory free now."""
        each = tokens * self.sizes.d_model * self._kept.itemsize
        return captions_at_once(each, self.device.type, psutil.virtual_memory().available)

    @property
    def _kept(self) -> torch.dtype:
        # With float16 the feed-forward part adds in float32, and its sums stay so from layer to layer.
        return torch.float32 if self.dtype == torch.float16 else self.dtype

    @torch.no_grad()
    def encode_ids(self, ids: Tensor, mask: Tensor | None = None, told: ToldFn | None = None) -> Tensor:
        """States (N, T, C) of token ids (N, T) in the encoder's dtype, on the CPU, in one pass over the file.

        ``mask`` (N, T) is True where a token is attended; None attends to padding too, as FLUX was trained.

        Raises:
            ModelFileError: a weight is unreadable or not finite.
        """
        told = told or _nobody
        ids = ids.to(self.device)
        masks: list[Tensor | None] = [None] * len(ids)
        for row, attended in enumerate(() if mask is None else mask.bool()):
            masks[row] = None if bool(attended.all()) else attended[None].to(self.device)
        self.passes += 1
        positions: Tensor | None = None
        with (
            contextlib.closing(
                WaitingStates((*ids.shape, self.sizes.d_model), self._kept, self.device, not self.sparing)
            ) as held,
            ThreadPoolExecutor(1, thread_name_prefix="t5") as reader,
        ):
            self.remark = held.remark
            table, norm = reader.submit(self._read_ends).result()
            for row in range(len(ids)):
                held.put(row, table(ids[row : row + 1]))
            _finish(self.device)
            del table
            upcoming = reader.submit(self._read_layer, 0)
            for number in range(self.sizes.layers):
                layer = upcoming.result()
                more = number + 1 < self.sizes.layers
                if more and not self.sparing:
                    upcoming = reader.submit(self._read_layer, number + 1)
                if positions is None:
                    positions = layer.position_bias(ids.shape[1], self.sizes)
                for row in range(len(ids)):
                    told(number * len(ids) + row, self.sizes.layers * len(ids))
                    before = held.get(row) if number else held.get(row).to(self.dtype)
                    found = layer(before, attention_bias(positions, masks[row]))
                    held.put(row, found if more else norm(found))
                # The other stream takes this memory at once when it is dropped: wait for its last use on this one.
                _finish(self.device)
                del layer
                if more and self.sparing:
                    upcoming = reader.submit(self._read_layer, number + 1)
            told(self.sizes.layers * len(ids), self.sizes.layers * len(ids))
            return held.all().to(self.dtype)

    def _read_ends(self) -> tuple[nn.Module, nn.Module]:
        """What comes before the first layer and after the last: the table of all tokens, and a norm."""
        with torch.device("meta"):
            table = nn.Embedding(self.sizes.vocab_size, self.sizes.d_model)
            norm = T5Norm(self.sizes.d_model)
        self._fill({"shared.": table, "encoder.final_layer_norm.": norm})
        return table, norm

    def _read_layer(self, number: int) -> T5Layer:
        """Layer ``number``; runs in the reading thread."""
        with torch.device("meta"):
            layer = T5Layer(self.sizes, number)
        self._fill({f"encoder.block.{number}.": layer})
        return layer

    def _fill(self, modules: Mapping[str, nn.Module]) -> None:
        """Read what the file has under each prefix into a module; all is on the device when this returns."""
        with (
            torch.no_grad(),
            torch.cuda.stream(self._stream) if self._stream is not None else contextlib.nullcontext(),
        ):
            for prefix, module in modules.items():
                self._fill_one(module, prefix)
            if self._stream is not None:
                self._stream.synchronize()

    def _fill_one(self, module: nn.Module, prefix: str) -> None:
        """Read the tensors under ``prefix`` into ``module``; in float16 ``wo``, whose outputs exceed it, is wide."""

        def own(infos: dict[str, TensorInfo]) -> dict[str, TensorInfo]:
            return {name.removeprefix(prefix): info for name, info in infos.items() if name.startswith(prefix)}

        part = replace(self._part, tensors=own(self._part.tensors), scales=own(self._part.scales), strangers=())
        half = self.dtype == torch.float16
        load_weights(
            module,
            part,
            device=self.device,
            dtype=self.dtype,
            keep_float32=lambda name: half and name.endswith(".wo.weight"),
        )
        module.eval()
        self.bytes_read += sum(info.end - info.begin for info in part.tensors.values())


class WaitingStates:
    """States of all captions of a pass between two layers: the first on the device, the others in host memory.

    Pinned in place and only while it is used: torch's own pinned memory is never given back. ``remark`` says so where
    the driver refuses, which slows the copies down.
    """

    def __init__(self, shape: tuple[int, ...], dtype: torch.dtype, device: torch.device, near: bool = True) -> None:
        self._device = device
        self._near: dict[int, Tensor] = {}
        self._host = torch.empty(shape, dtype=dtype)
        on_gpu = device.type == "cuda" and self._host.nbytes > 0
        refused = _register(self._host) if on_gpu else ""
        self._pinned = on_gpu and not refused
        self.remark = (
            f"Captions wait in host memory that is not pinned, copies are slower: {refused}" if refused else ""
        )
        self._room = NEAR_BYTES // self._host[0].nbytes if on_gpu and near else 0

    def get(self, row: int) -> Tensor:
        """One caption's states (1, T, C) on the device."""
        if row in self._near:
            return self._near[row]
        return self._host[row : row + 1].to(self._device, non_blocking=self._pinned)

    def put(self, row: int, states: Tensor) -> None:
        """Keep one caption's states (1, T, C)."""
        if row < self._room:
            self._near[row] = states.to(self._host.dtype)
        else:
            self._host[row : row + 1].copy_(states, non_blocking=self._pinned)

    def all(self) -> Tensor:
        """All states (N, T, C) on the CPU, final."""
        for row, states in self._near.items():
            self._host[row : row + 1].copy_(states, non_blocking=self._pinned)
        _finish(self._device)
        return self._host

    def close(self) -> None:
        """Wait for copies under way, and let the system have the host memory's pages again."""
        _finish(self._device)
        self._near.clear()
        if self._pinned:
            torch.cuda.cudart().cudaHostUnregister(self._host.data_ptr())
            self._pinned = False


def _register(host: Tensor) -> str:
    """Pin memory in place; the driver's reason if it refuses."""
    code = int(torch.cuda.cudart().cudaHostRegister(host.data_ptr(), host.nbytes, 0))
    if code:
        with contextlib.suppress(RuntimeError):
            torch.zeros(1, device="cuda")  # the refusal would be raised by whatever is launched next: let it be this
    return f"the driver refused, error {code}" if code else ""


def _finish(device: torch.device) -> None:
    """Wait until everything launched so far is done."""
    if device.type == "cuda":
        torch.cuda.current_stream(device).synchronize()


def _nobody(_done: int, _of: int) -> None:
    pass
