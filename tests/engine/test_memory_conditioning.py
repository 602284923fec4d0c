"""Modulation from one routine: equal to the plain model's, and the same bits however many samples are asked for."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from memory_doubles import RecordingCopier
from model_files import TINY, random_tensors, tiny_flux, write
from torch import Tensor
from torch.nn import functional as F

from engine.errors import ModelFileError
from engine.memory.conditioning import (
    CHUNK,
    PIECE,
    Conditioning,
    HeldLayers,
    PoolMemory,
    arriving,
    slot_views,
    travelling,
)
from engine.memory.copier import DirectCopier
from engine.memory.frozen import Dense, FrozenLinear
from engine.memory.modulation_file import FileLayers, layers_bytes, why_from_file
from engine.memory.pinned import HostPool
from engine.models.detect import expect_part
from engine.models.flux import FluxParams, FluxTransformer
from engine.models.flux_file import layout, load_flux
from engine.models.modulation import modulation_places

PLACES = modulation_places(TINY.depth, TINY.depth_single_blocks)
DTYPES = pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])


def model(params: FluxParams = TINY, dtype: torch.dtype = torch.float32) -> FluxTransformer:
    built = FluxTransformer(params)
    built.load_state_dict(random_tensors(layout(params), 3, 0.1))
    return built.requires_grad_(False).to(dtype)


def held(plain: FluxTransformer) -> HeldLayers:
    places = modulation_places(plain.params.depth, plain.params.depth_single_blocks)
    linears = {place.name: plain.get_submodule(place.name) for place in places}
    return HeldLayers({name: Dense(lin.weight.detach(), lin.bias.detach()) for name, lin in linears.items()})  # type: ignore[arg-type,operator]


def conditioning(plain: FluxTransformer, **options: Any) -> Conditioning:
    places = modulation_places(plain.params.depth, plain.params.depth_single_blocks)
    return Conditioning(plain, places, options.pop("source", held(plain)), **options)


def asked(count: int, params: FluxParams = TINY, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    draw = torch.Generator().manual_seed(seed)
    y = torch.randn(count, params.vec_in_dim, generator=draw)
    return torch.rand(count, generator=draw), y, torch.rand(count, generator=draw) * 4


@DTYPES
def test_rows_are_the_plain_models(dtype: torch.dtype) -> None:
    plain = model(dtype=dtype)
    sigma, y, guidance = asked(5)
    found = conditioning(plain)(sigma, y, guidance)
    vec = plain.conditioning(sigma, y, guidance)
    assert found.rows.dtype == found.vec.dtype == dtype
    assert found.rows.shape == (5, 12 * 2 + 3 * 3 + 2, TINY.hidden_size)
    near = {"rtol": 1e-6, "atol": 1e-6} if dtype == torch.float32 else {"rtol": 2e-2, "atol": 2e-2}
    torch.testing.assert_close(found.vec, vec, **near)
    for place in PLACES:
        wanted = plain.get_submodule(place.name)(F.silu(vec)).view(5, place.count, -1)
        rows = found.rows[:, place.first : place.first + place.count]
        torch.testing.assert_close(rows, wanted, **near)


def test_the_table_is_in_the_order_in_which_blocks_take_it() -> None:
    plain = model()
    sigma, y, guidance = asked(2)
    rows, vec = (found := conditioning(plain)(sigma, y, guidance)).rows, found.vec
    first = [rows[:, n : n + 1] for n in range(12)]
    for theirs, ours in zip((*plain.double_blocks[0].img_mod(vec), *plain.double_blocks[0].txt_mod(vec)), first):  # type: ignore[operator,arg-type] # noqa: B905
        torch.testing.assert_close(ours, theirs)
    shift, scale = plain.final_layer.adaLN_modulation(vec).chunk(2, dim=-1)
    torch.testing.assert_close(rows[:, -2:], torch.stack([shift, scale], 1))


WIDE = FluxParams(
    vec_in_dim=40,
    context_in_dim=8,
    hidden_size=264,
    num_heads=2,
    depth=1,
    depth_single_blocks=1,
    axes_dim=(4, 64, 64),
)


@DTYPES
@pytest.mark.parametrize("params", [TINY, WIDE], ids=["tiny", "wide"])
def test_a_samples_bits_depend_on_nothing_beside_it(dtype: torch.dtype, params: FluxParams) -> None:
    """Neither on how many samples are asked for, nor on its place among them, nor on the others."""
    compute = conditioning(model(params, dtype))
    given = asked(37, params)
    whole = compute(*given)
    for count in (1, 2, 3, PIECE - 1, PIECE, PIECE + 1, 37):
        part = compute(*(value[:count] for value in given))
        assert torch.equal(part.rows, whole.rows[:count]) and torch.equal(part.vec, whole.vec[:count])
    for shift in range(1, PIECE + 1):
        moved = compute(*(value.roll(shift, 0) for value in given))
        assert torch.equal(moved.rows.roll(-shift, 0), whole.rows)
        assert torch.equal(moved.vec.roll(-shift, 0), whole.vec)
    alone = compute(*(value[20:21] for value in given))
    assert torch.equal(alone.rows[0], whole.rows[20])


@DTYPES
def test_a_table_has_the_bits_of_a_call(dtype: torch.dtype) -> None:
    compute = conditioning(model(dtype=dtype))
    given = asked(21)
    direct, table = compute(*given), compute.table(*given)
    assert torch.equal(direct.rows, table.rows) and torch.equal(direct.vec, table.vec)
    part = table.take(18, 3, "cpu")
    assert torch.equal(part.rows, direct.rows[18:]) and torch.equal(part.vec, direct.vec[18:])
    with pytest.raises(IndexError, match="18 to 22 of a table of 21"):
        table.take(18, 4, "cpu")
    assert compute.bytes_of(21) == table.rows.nbytes + table.vec.nbytes


def test_a_tables_memory_is_used_again() -> None:
    asked_for: list[tuple[int, ...]] = []

    class Host:
        def take(self, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
            asked_for.append(shape)
            return torch.full(shape, float("nan"), dtype=dtype)

        def give_back(self, tensor: Tensor) -> None:
            raise AssertionError("nothing is given back")

    compute = conditioning(model(), host=Host())
    memory = compute.reserve(20)
    later = compute.table(*asked(7, seed=1), into=memory)
    assert asked_for == [(20, 35, 64), (20, 64)]
    assert later.rows.data_ptr() == memory.rows.data_ptr() and later.samples == 7
    assert torch.equal(later.rows, compute(*asked(7, seed=1)).rows)


def test_every_layer_passes_once_a_table() -> None:
    class Counting:
        def __init__(self) -> None:
            self.passed: Counter[str] = Counter()

        def layers(self) -> Iterator[tuple[str, FrozenLinear]]:
            for name, layer in reversed(list(held(plain).layers())):
                self.passed[name] += 1
                yield name, layer

    plain, source = model(), Counting()
    table = conditioning(plain, source=source).table(*asked(3 * PIECE + 1))
    assert source.passed == Counter(place.name for place in PLACES)
    assert torch.equal(table.rows, conditioning(plain)(*asked(3 * PIECE + 1)).rows)


def test_what_is_missing_is_said() -> None:
    plain = model()
    sigma, y, _ = asked(2)
    with pytest.raises(ValueError, match="embeds guidance"):
        conditioning(plain)(sigma, y)
    few = HeldLayers(dict(list(held(plain).layers())[1:]))
    with pytest.raises(ValueError, match="no weights for 1 modulation layers, double_blocks"):
        conditioning(plain, source=few)(*asked(2))


def test_a_model_without_guidance_ignores_it() -> None:
    params = FluxParams(**{**TINY.to_dict(), "axes_dim": TINY.axes_dim, "guidance_embed": False})
    compute = conditioning(model(params))
    sigma, y, guidance = asked(2)
    assert torch.equal(compute(sigma, y).rows, compute(sigma, y, guidance).rows)


def test_no_graph_no_draw_no_autocast() -> None:
    plain = model().requires_grad_(True)
    compute = conditioning(plain)
    before, wanted = torch.get_rng_state(), compute(*asked(2)).rows
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = compute(*asked(2))
    assert torch.equal(found.rows, wanted) and not found.rows.requires_grad and not found.vec.requires_grad
    assert torch.equal(torch.get_rng_state(), before)


def test_layers_follow_their_device() -> None:
    source = held(model())
    source.to("meta")
    assert {layer.tensors()["weight"].device.type for _, layer in source.layers()} == {"meta"}
    compute = conditioning(model())
    rows = compute(*asked(1)).rows
    compute.leave()
    assert compute.host_bytes() == 0
    compute.come_back()
    assert torch.equal(compute(*asked(1)).rows, rows)


def test_slots_hold_layers_side_by_side() -> None:
    tensors = {"weight": torch.randn(5, 3).bfloat16(), "scale": torch.randn(5), "bias": torch.randn(7)}
    slot = torch.empty(3 * 512, dtype=torch.uint8)
    views = slot_views(slot, tensors)
    for name, tensor in tensors.items():
        views[name].copy_(tensor)
    assert all(torch.equal(views[name], tensor) for name, tensor in tensors.items())
    begins = [view.data_ptr() - slot.data_ptr() for view in views.values()]
    assert begins == [0, 512, 1024]


class LateCopier(DirectCopier):
    """Copies at the latest moment allowed: when somebody waits for it; before that the memory holds nonsense."""

    def __init__(self) -> None:
        self.owed: dict[int, list[tuple[Tensor, Tensor]]] = {}
        self.set: dict[int, int] = {}
        self.clock = 0
        self.loads: list[tuple[int, int]] = []

    def mark(self) -> object:
        return object()

    def record(self, mark: object) -> None:
        self.clock += 1
        self.set[id(mark)] = self.clock

    def load(self, target: Tensor, source: Tensor, after: Any, done: object) -> None:
        self.loads.append((target.data_ptr(), max(self.set[id(mark)] for mark in after)))
        target.view(torch.uint8).fill_(255)
        self.owed.setdefault(id(done), []).append((target, source))

    def wait(self, mark: object) -> None:
        for target, source in self.owed.pop(id(mark), ()):
            target.copy_(source)

    def join(self) -> None:
        assert not self.owed


def test_layers_travel_one_ahead_through_two_slots() -> None:
    copier, source = LateCopier(), list(held(model()).layers())
    slots, asked_before = set(), []
    for name, layer in travelling(source, torch.device("cpu"), copier):
        wanted = dict(source)[name].tensors()
        assert all(torch.equal(tensor, wanted[key]) for key, tensor in layer.tensors().items())
        slots.add(layer.tensors()["weight"].data_ptr())
        asked_before.append(len(copier.loads) // 2)
        copier.clock += 1  # the work on this layer
    assert asked_before == [*range(2, len(source) + 1), len(source)]
    assert len(slots) == 2, "memory grows"
    # A layer may be written over from the moment on at which the work on it, and on nothing later, is launched.
    launched = [after for _, after in copier.loads[::2]]
    assert launched[2:] == [2 + 2 * n + 1 + 1 for n in range(len(source) - 2)]


def test_a_pass_given_up_leaves_nothing_on_its_way() -> None:
    copier = RecordingCopier()
    joined: list[int] = []
    copier.join = lambda: joined.append(len(copier.loads))  # type: ignore[method-assign]
    passing = travelling(list(held(model()).layers()), torch.device("cpu"), copier)
    next(passing)
    passing.close()
    assert joined == [4]


def test_a_table_from_layers_that_travel(monkeypatch: pytest.MonkeyPatch) -> None:
    plain, copier = model(), RecordingCopier(LateCopier())
    wanted = conditioning(plain).table(*asked(20))
    monkeypatch.setattr("engine.memory.conditioning.arriving", travelling)
    table = conditioning(plain, copier=copier).table(*asked(20))
    assert torch.equal(table.rows, wanted.rows)
    width, vectors = TINY.hidden_size, 12 * 2 + 3 * 3 + 2
    assert sum(copier.loads) == vectors * width * (width + 1) * 4, "bytes over the link"


def test_bytes_at_full_size() -> None:
    """What the documents say: 2.1 MB a sample, 543 MB a chunk, in bfloat16."""
    with torch.device("meta"):
        full = FluxTransformer(FluxParams()).to(torch.bfloat16)
    compute = Conditioning(full, modulation_places(19, 38), HeldLayers({}))
    assert (compute.vectors, compute.width) == (344, 3072)
    assert compute.bytes_of(1) == 2_119_680 and compute.bytes_of(CHUNK) == 542_638_080


def test_kept_tables_lie_in_a_pool() -> None:
    pool = HostPool(2**20, pin=False, free_bytes=2**40)
    compute = conditioning(model(), host=PoolMemory(pool))
    memory = compute.reserve(9)
    assert pool.pageable_bytes == compute.bytes_of(9)
    assert torch.equal(compute.table(*asked(9), into=memory).rows, compute(*asked(9)).rows)
    compute.table(*asked(9))
    assert pool.pageable_bytes == compute.bytes_of(9), "a table that is not kept is none of the pool's"
    compute.give_back(memory)
    assert not pool.pageable_bytes


class TestFromTheFile:
    """Weights read from the checkpoint again, pass by pass."""

    @DTYPES
    def test_the_same_bits_as_from_memory(self, tmp_path: Path, dtype: torch.dtype) -> None:
        path = tiny_flux(tmp_path / "m.safetensors")
        plain = load_flux(path, "cpu", dtype)
        _, part = expect_part(path, "transformer")
        file = FileLayers(part, PLACES, dtype)
        assert torch.equal(conditioning(plain, source=file)(*asked(3)).rows, conditioning(plain)(*asked(3)).rows)
        names = [name for name, _ in file.layers()]
        begins = [part.tensors[f"{name}.weight"].begin for name in names]
        assert sorted(names) == sorted(place.name for place in PLACES) and begins == sorted(begins)

    def test_scaled_fp8_weights(self, tmp_path: Path) -> None:
        tensors = random_tensors(layout(TINY))
        for place in PLACES:
            tensors[f"{place.name}.weight"] = tensors[f"{place.name}.weight"].to(torch.float8_e4m3fn)
            tensors[f"{place.name}.scale_weight"] = torch.tensor(0.5)
        path = write(tmp_path / "m.safetensors", tensors, TINY.to_dict())
        plain = load_flux(path, "cpu", torch.bfloat16)
        _, part = expect_part(path, "transformer")
        found = conditioning(plain, source=FileLayers(part, PLACES, torch.bfloat16))(*asked(3))
        assert torch.equal(found.rows, conditioning(plain)(*asked(3)).rows)

    def test_a_file_that_was_changed_is_refused(self, tmp_path: Path) -> None:
        path = tiny_flux(tmp_path / "m.safetensors")
        _, part = expect_part(path, "transformer")
        file = FileLayers(part, PLACES, torch.float32)
        os.utime(path, ns=(1, 1))
        with pytest.raises(ModelFileError, match="changed while it was in use"):
            next(file.layers())
        path.unlink()
        with pytest.raises(ModelFileError, match="could not be read"):
            next(file.layers())

    def test_a_host_that_cannot_keep_them_is_told_why(self) -> None:
        full = FluxParams()
        places = modulation_places(full.depth, full.depth_single_blocks)
        needed = layers_bytes(places, full.hidden_size, torch.bfloat16)
        assert needed == sum(layout(full)[f"{p.name}.weight"][0] for p in places) * (3072 + 1) * 2 == 6_494_896_128
        assert why_from_file(places, 3072, torch.bfloat16, needed) == ""
        said = why_from_file(places, 3072, torch.bfloat16, 4_000_000_000)
        assert "6.5 GB of host memory wanted, 4.0 GB free" in said


def test_layers_on_the_device_are_passed_on_as_they_are() -> None:
    source = dict(held(model()).layers())
    for name, layer in arriving(iter(source.items()), torch.device("cpu")):
        assert layer is source[name]
