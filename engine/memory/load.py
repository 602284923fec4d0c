"""Loads a FLUX.1 transformer as a frozen base: blocks packed to a precision, each straight to its place.

In: a checkpoint (any precision that files come in) and a wish. Out: a :class:`LoadedBase`: the blocks' weights as
:mod:`engine.memory.frozen` has them, the input and output layers as a module, the modulation layers by name. The file
is read one tensor at a time, and each is packed as it comes, so that there is never a second full copy. Packing is
done once: the packed blocks are kept in the cache folder and read from there at the next start. fp8 files become an
fp8 base as they are, scaled or plain.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from engine.cache.store import content_key
from engine.memory.base_file import BaseFile, InputOutput, Progress, block_fields, block_templates, products_of
from engine.memory.frozen import BlockWeights, Dense, DoubleWeights, block_tensors, with_block_tensors
from engine.memory.packed_copy import VERSION, CopyReader, CopyWriter, DamagedCopy, copy_format
from engine.memory.precision import Precision, require
from engine.memory.products8 import Choice
from engine.models.flux import FluxParams
from engine.models.flux_file import flux_params, flux_part, layout
from engine.models.header import file_fingerprint
from engine.models.parts import Part
from engine.models.weights import check_layout
from engine.text import safe_text

Room = Callable[[int, BlockWeights], "Mapping[str, Tensor] | None"]
Place = Callable[[int, BlockWeights], BlockWeights]


@dataclass
class LoadedBase:
    """A frozen base, ready to train on.

    Attributes:
        part: the checked part of the file it came from.
        params: its sizes.
        io: input and output layers on the compute device, in the compute dtype.
        blocks: weights of all blocks, double ones first, each where ``place`` or ``room`` put it.
        modulation: the modulation layers by their released names, on ``modulation_device``; empty if not asked for.
        notes: what should be told, one sentence each.
        reread: weights of a block again, in host memory, with what was decided of their products meanwhile; None
            where they would have to be packed anew.
    """

    part: Part
    params: FluxParams
    io: InputOutput
    blocks: list[BlockWeights]
    modulation: dict[str, Dense]
    notes: list[str] = field(default_factory=list)
    reread: Callable[[int], BlockWeights] | None = None


def load_base(
    path: Path,
    *,
    device: torch.device | str,
    dtype: torch.dtype,
    precision: Precision = "auto",
    choice: Choice | None = None,
    cache_dir: Path | None = None,
    room: Room | None = None,
    place: Place | None = None,
    modulation_device: torch.device | str | None = "cpu",
    progress: Progress | None = None,
) -> LoadedBase:
    """Load the transformer at ``path``, frozen.

    Args:
        path: a single file in the released layout.
        device: where blocks are packed, and stay unless ``room`` or ``place`` say otherwise.
        dtype: what the base computes in; norms, biases, input and output layers are kept in it.
        precision: of the blocks' weights.
        choice: how packed linears multiply; wide when None.
        cache_dir: where packed blocks are kept for the next start; None keeps nothing.
        room: asked once for each block, with the block on the meta device: memory to put its tensors in, by the
            names of ``block_tensors``, or None for memory of their own on ``device``.
        place: given each block when it is whole; returns it as it shall be kept.
        modulation_device: where the modulation layers go; None leaves them in the file.
        progress: told bytes of the checkpoint done and in all; what it raises ends the loading.

    Raises:
        ModelFileError: not a complete FLUX.1 transformer, or damaged.
        ConfigError: nf4 without bitsandbytes.
    """
    require(precision)
    part = flux_part(path)
    params = flux_params(part)
    check_layout(part, layout(params))
    products = products_of(params, choice or Choice("wide"))
    with BaseFile(part, params, torch.device(device), dtype, precision, products, progress) as loader:
        loader.count(with_modulation=modulation_device is not None)
        copy = _Copy(loader, cache_dir)
        io = loader.input_output()
        blocks = copy.blocks(room or (lambda block, template: None), place or (lambda block, weights: weights))
        modulation = {} if modulation_device is None else loader.modulation(modulation_device)
    return LoadedBase(part, params, io, blocks, modulation, copy.notes, copy.reread())


class _Copy:
    """The blocks, from the copy on disk as far as it is good, else from the checkpoint into a new copy."""

    def __init__(self, loader: BaseFile, cache_dir: Path | None) -> None:
        self.notes: list[str] = []
        self._loader = loader
        self._templates = block_templates(loader.params, loader.precision, loader.dtype, loader.products)
        part = loader.part
        self._wanted = cache_dir is not None and not loader.direct()
        if self._wanted and cache_dir is not None:
            key = content_key(
                base=file_fingerprint(part.header.path), prefix=part.prefix, precision=loader.precision,
                dtype=str(loader.dtype), version=VERSION,
            )  # fmt: skip
            self.path = cache_dir / "base" / f"{key}.safetensors"
            self._form = copy_format(self._templates, key)

    def blocks(self, room: Room, place: Place) -> list[BlockWeights]:
        """All blocks, in their order."""
        reader = self._open()
        writer: CopyWriter | None = None
        blocks: list[BlockWeights] = []
        try:
            for block, template in enumerate(self._templates):
                into = room(block, template)
                weights: BlockWeights | None = None
                if reader is not None:
                    weights = self._read(reader, block, into)
                    if weights is None:
                        reader.close()
                        reader = None
                if weights is None:
                    writer = writer or self._begin(blocks)
                    weights = self._loader.block(block, into)
                    if block + 1 == len(self._templates):
                        self._loader.refuse_changed()  # before the copy is whole: half of another file is not kept
                    if writer is not None:
                        writer.add(block, weights)
                blocks.append(place(block, weights))
        finally:
            if reader is not None:
                reader.close()
            if writer is not None:
                writer.__exit__(None, None, None)
        self._tell(reader, writer)
        return blocks

    def reread(self) -> Callable[[int], BlockWeights] | None:
        """See :attr:`LoadedBase.reread`."""
        loader = self._loader
        if not (loader.direct() or (self._wanted and self.path.is_file())):
            return None

        def again(block: int) -> BlockWeights:
            into = self._memory(block, torch.device("cpu"))
            reader = self._open()
            if reader is not None:
                try:
                    weights = self._read(reader, block, into)
                finally:
                    reader.close()
                if weights is not None:
                    return weights
            # Packed where it was packed before: another device could round otherwise.
            with BaseFile(
                loader.part, loader.params, loader.device, loader.dtype, loader.precision, loader.products
            ) as fresh:
                return fresh.block(block, into)

        return again

    def _memory(self, block: int, device: torch.device) -> dict[str, Tensor]:
        return {
            name: torch.empty(tensor.shape, dtype=tensor.dtype, device=device)
            for name, tensor in block_tensors(self._templates[block]).items()
        }

    def _open(self) -> CopyReader | None:
        if not self._wanted:
            return None
        try:
            return CopyReader(self.path, self._form)
        except FileNotFoundError:
            return None
        except DamagedCopy as err:
            self._damaged(err)
            return None

    def _read(self, reader: CopyReader, block: int, into: Mapping[str, Tensor] | None) -> BlockWeights | None:
        """A block from the copy; None if that is damaged."""
        template = self._templates[block]
        if into is None:
            into = self._memory(block, self._loader.device)
        try:
            reader.read(block, into)
        except DamagedCopy as err:
            self._damaged(err)
            return None
        for name in block_fields(block, self._loader.params):
            for whole in (name, f"{name}.weight", f"{name}.bias"):
                if whole in self._loader.part.tensors:
                    self._loader.told(whole)
        if isinstance(template, DoubleWeights):
            return with_block_tensors(template, into)
        return with_block_tensors(template, into)

    def _begin(self, done: list[BlockWeights]) -> CopyWriter | None:
        """Start a new copy with the blocks that are there already."""
        if not self._wanted:
            return None
        writer = CopyWriter(self.path, self._form).__enter__()
        for block, weights in enumerate(done):
            writer.add(block, weights)
        return writer

    def _damaged(self, err: DamagedCopy) -> None:
        self.notes.append(f"The packed copy {safe_text(self.path, 400)} is damaged: {err}; it is made again")

    def _tell(self, reader: CopyReader | None, writer: CopyWriter | None) -> None:
        if not self._wanted:
            return
        size = f"{self._form.size_bytes / 1e9:.2f} GB"
        if reader is not None:
            self.notes.append(f"The base was read packed: {size} from {safe_text(self.path, 400)}")
        elif writer is not None and writer.failure:
            self.notes.append(f"The packed base is not kept ({writer.failure}): the next start packs it again")
        elif writer is not None:
            self.notes.append(f"The packed base is kept for the next start: {size} in {safe_text(self.path, 400)}")
