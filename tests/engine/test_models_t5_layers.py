"""T5 layer by layer: one pass over its file, two layers in memory at most, and the bits of a whole encoder."""

from __future__ import annotations

import gc
import threading
import weakref
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from model_files import random_tensors, write
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten

from engine.errors import ModelFileError
from engine.models import t5_layers
from engine.models.t5_layers import T5Encoder, WaitingStates, captions_at_once
from engine.models.t5_net import T5Layer, T5Norm, attention_bias
from engine.models.text_encoders import load_t5
from engine.models.text_layout import T5Sizes, t5_layout

SIZES = T5Sizes(vocab_size=40, d_model=24, d_kv=6, d_ff=32, layers=5, num_heads=4)
IDS = torch.randint(2, 40, (7, 9), generator=torch.Generator().manual_seed(0))
MASK = torch.arange(9)[None] < torch.tensor([9, 1, 2, 3, 4, 5, 9])[:, None]


def encoder(folder: Path, dtype: torch.dtype = torch.float32, **changes: Tensor) -> T5Encoder:
    state = random_tensors(t5_layout(SIZES)) | changes
    return load_t5(write(folder / "t5.safetensors", state), "cpu", dtype)


def test_the_file_is_read_once_for_all_captions(tmp_path: Path) -> None:
    found = encoder(tmp_path)
    assert found.bytes_read == 0, "nothing is read before it is needed"
    told: list[tuple[int, int]] = []
    found.encode_ids(IDS, told=lambda done, of: told.append((done, of)))
    tensors = sum(4 * tensor.numel() for tensor in random_tensors(t5_layout(SIZES)).values())
    assert (found.passes, found.bytes_read) == (1, tensors)
    assert told == [(done, 5 * 7) for done in range(5 * 7 + 1)]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("mask", [None, MASK])
def test_a_caption_has_the_bits_it_has_alone(tmp_path: Path, mask: Tensor | None, dtype: torch.dtype) -> None:
    found = encoder(tmp_path, dtype)
    together = found.encode_ids(IDS, mask)
    assert together.dtype == dtype
    for row in range(len(IDS)):
        alone = found.encode_ids(IDS[row : row + 1], None if mask is None else mask[row : row + 1])
        assert torch.equal(alone[0], together[row])
    assert mask is None or not torch.equal(together, found.encode_ids(IDS))


@pytest.mark.slow
def test_two_layers_at_most_are_held(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    alive: list[weakref.ref[Any]] = []
    most = 0
    read = T5Encoder._read_layer

    def watched(self: T5Encoder, number: int) -> T5Layer:
        nonlocal most
        assert threading.current_thread().name.startswith("t5")
        layer = read(self, number)
        alive.append(weakref.ref(layer))
        gc.collect()
        most = max(most, sum(ref() is not None for ref in alive))
        return layer

    monkeypatch.setattr(T5Encoder, "_read_layer", watched)
    encoder(tmp_path).encode_ids(IDS)
    assert len(alive) == SIZES.layers
    assert most <= 2


class Enough(Exception):
    """Raised by a test's ``told``."""


def test_what_is_told_may_end_the_pass(tmp_path: Path) -> None:
    found = encoder(tmp_path)

    def told(done: int, _of: int) -> None:
        if done == 9:
            raise Enough

    with pytest.raises(Enough):
        found.encode_ids(IDS, told=told)
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("t5")]
    assert torch.equal(found.encode_ids(IDS[:1]), encoder(tmp_path).encode_ids(IDS[:1]))


def test_a_broken_weight_is_named_when_its_layer_comes(tmp_path: Path) -> None:
    name = "encoder.block.3.layer.1.layer_norm.weight"
    found = encoder(tmp_path, **{name: torch.full((24,), float("nan"))})
    with pytest.raises(ModelFileError, match=name):
        found.encode_ids(IDS)


def test_a_type_that_no_weight_has_is_refused_before_anything_is_read(tmp_path: Path) -> None:
    with pytest.raises(ModelFileError, match=r"(?s)unusable dtype.*shared\.weight \(I32\)"):
        encoder(tmp_path, **{"shared.weight": torch.zeros(40, 24, dtype=torch.int32)})


def test_how_many_captions_share_a_pass() -> None:
    each = 512 * 4096 * 2
    assert captions_at_once(each, "cuda", 32 * 2**30) == 2048
    assert captions_at_once(each, "cuda", 10**6) == 1
    assert captions_at_once(each, "cpu", 32 * 2**30) == 32


def test_states_wait_on_the_device_while_they_are_few(monkeypatch: pytest.MonkeyPatch) -> None:
    states = torch.arange(24.0).reshape(4, 2, 3)
    held = WaitingStates((4, 2, 3), torch.float32, torch.device("cpu"))
    held._room = 2  # as on a GPU
    for row in range(4):
        held.put(row, states[row : row + 1])
    assert sorted(held._near) == [0, 1]
    assert all(torch.equal(held.get(row)[0], states[row]) for row in range(4))
    assert torch.equal(held.all(), states)
    held.close()
    assert not held._near
    # A GPU whose driver does not pin: it goes on, and says so.
    monkeypatch.setattr(t5_layers, "NEAR_BYTES", 48)
    monkeypatch.setattr(t5_layers, "_register", lambda host: "error 2")
    refused = WaitingStates((4, 2, 3), torch.float32, torch.device("cuda"))
    assert refused.remark.endswith("not pinned, copies are slower: error 2")
    assert (refused._room, refused._pinned) == (2, False)
    monkeypatch.setattr(t5_layers, "_register", lambda host: "")
    assert not WaitingStates((4, 2, 3), torch.float32, torch.device("cuda")).remark


class Live(TorchDispatchMode):
    """Counts the bytes of tensors that are alive, and their highest sum."""

    def __init__(self) -> None:
        super().__init__()
        self.holders: Counter[int] = Counter()
        self.now = self.most = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for tensor in tree_flatten(out)[0]:
            if isinstance(tensor, Tensor):
                self.add(tensor)
        return out

    def add(self, tensor: Tensor) -> None:
        """Count ``tensor``'s storage until its last holder is gone."""
        place, size = tensor.untyped_storage()._cdata, tensor.untyped_storage().nbytes()
        if not self.holders[place]:
            self.now += size
            self.most = max(self.most, self.now)
        self.holders[place] += 1
        weakref.finalize(tensor, self.drop, place, size)

    def drop(self, place: int, size: int) -> None:
        """One holder less."""
        self.holders[place] -= 1
        if not self.holders[place]:
            self.now -= size


@pytest.fixture
def sixteen_bit() -> Iterator[None]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.bfloat16)
    yield
    torch.set_default_dtype(before)


@pytest.mark.usefixtures("sixteen_bit")
@pytest.mark.parametrize("masked", [False, True])
def test_full_size_needs_less_than_two_gigabytes(masked: bool) -> None:
    """One caption of 512 tokens through a layer of T5-XXL in 16 bit, the next layer and the waiting states beside."""
    sizes, live = T5Sizes(), Live()
    with FakeTensorMode(), live, torch.no_grad():
        layer, upcoming = T5Layer(sizes, 0), T5Layer(sizes, 1)
        for tensor in (*layer.parameters(), *upcoming.parameters()):
            assert tensor.dtype == torch.bfloat16
        gc.collect()
        two = live.now
        positions = layer.position_bias(512, sizes)
        live.most = 0
        x = torch.empty(1, 512, sizes.d_model, dtype=torch.bfloat16)
        mask = torch.ones(1, 512, dtype=torch.bool) if masked else None
        norm = T5Norm(sizes.d_model)
        x = norm(layer(x, attention_bias(positions, mask)))
        assert x.shape == (1, 512, 4096)
        del upcoming
    assert two == pytest.approx(2 * 386e6, rel=0.01)
    context = 600e6
    assert live.most + t5_layers.NEAR_BYTES + context < 2e9, live.most


def test_the_first_layer_knows_distances(tmp_path: Path) -> None:
    read: Callable[[int], T5Layer] = encoder(tmp_path)._read_layer
    assert read(0).position_bias(9, SIZES).shape == (1, 4, 9, 9)
    with pytest.raises(AttributeError):
        read(1).position_bias(9, SIZES)
