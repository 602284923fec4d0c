"""The frozen base from a file: every precision of file and base, each tensor straight to its place, no copies."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import weakref
from pathlib import Path
from typing import Any

import pytest
import torch
from memory_doubles import weight_bytes
from model_files import TINY, random_tensors, tiny_flux, write
from torch import Tensor

import engine.models.weights as weights
from engine.errors import ConfigError, ModelFileError
from engine.memory.base_file import block_templates
from engine.memory.calibration import decide, decisions, packed_linears
from engine.memory.frozen import BlockWeights, Dense, DoubleWeights, block_tensors
from engine.memory.load import LoadedBase, load_base
from engine.memory.pinned import HostPool
from engine.memory.placement import Placement, plan_blocks
from engine.memory.precision import Fp8, Int8, Nf4, Packed8
from engine.memory.products8 import Choice
from engine.models.flux import FluxParams
from engine.models.flux_file import layout, load_flux
from engine.models.modulation import modulation_places

CPU = "cpu"
FILES = (torch.float32, torch.bfloat16, torch.float16, torch.float8_e4m3fn, torch.float8_e5m2)
ERRORS = {"auto": 0.0, "int8": 0.01, "fp8": 0.035, "nf4": 0.11}
"""Largest relative error of a packed weight against the file's."""


def base_of(path: Path, precision: str = "auto", dtype: torch.dtype = torch.float32, **more: Any) -> LoadedBase:
    return load_base(path, device=CPU, dtype=dtype, precision=precision, **more)  # type: ignore[arg-type]


def matrices(base: LoadedBase) -> dict[str, Any]:
    """The blocks' linears by the released names of their modules."""
    found: dict[str, Any] = {}
    for block, parts in enumerate(base.blocks):
        if isinstance(parts, DoubleWeights):
            for stream, part in (("img", parts.img), ("txt", parts.txt)):
                at = f"double_blocks.{block}.{stream}"
                found |= {f"{at}_attn.qkv": part.qkv, f"{at}_attn.proj": part.proj}
                found |= {f"{at}_mlp.0": part.mlp_in, f"{at}_mlp.2": part.mlp_out}
        else:
            at = f"single_blocks.{block - base.params.depth}"
            found |= {f"{at}.linear1": parts.linear1, f"{at}.linear2": parts.linear2}
    return found


def unpacked(linear: Any) -> Tensor:
    return linear.weight.float() if isinstance(linear, Dense) else linear.dequantize()


def same_blocks(one: LoadedBase, other: LoadedBase) -> bool:
    pairs = zip(one.blocks, other.blocks, strict=True)
    return all(
        a.dtype == b.dtype and torch.equal(a.float(), b.float())
        for left, right in pairs
        for (a, b) in zip(block_tensors(left).values(), block_tensors(right).values(), strict=True)
    )


def scaled_fp8(tensors: dict[str, Tensor], rows: bool) -> dict[str, Tensor]:
    """Matrices in e4m3 with scales, the rest in bf16, as scaled checkpoints have them."""
    out: dict[str, Tensor] = {"scaled_fp8": torch.zeros(2, dtype=torch.float8_e4m3fn)}
    for name, tensor in tensors.items():
        if tensor.ndim < 2:
            out[name] = tensor.bfloat16()
            continue
        scale = (tensor.abs().amax(dim=1) if rows else tensor.abs().max()) / 448
        out[name] = (tensor / (scale[:, None] if rows else scale)).to(torch.float8_e4m3fn)
        out[name.removesuffix("weight") + "scale_weight"] = scale.float()
    return out


@pytest.mark.parametrize("stored", FILES)
@pytest.mark.parametrize("precision", list(ERRORS))
def test_every_file_in_every_precision(stored: torch.dtype, precision: str, tmp_path: Path) -> None:
    tensors = {name: tensor.to(stored) for name, tensor in random_tensors(layout(TINY)).items()}
    path = write(tmp_path / "m.safetensors", tensors, TINY.to_dict())
    base, plain = base_of(path, precision), load_flux(path, CPU, torch.float32)
    assert base.params == TINY
    kind = {"auto": Dense, "int8": Int8, "fp8": Fp8, "nf4": Nf4}[precision]
    for name, linear in matrices(base).items():
        assert isinstance(linear, kind)
        wanted = plain.get_submodule(name)
        assert (unpacked(linear) - wanted.weight).norm() <= ERRORS[precision] * wanted.weight.norm(), name
        assert torch.equal(linear.bias, wanted.bias)
    assert torch.equal(base.blocks[1].txt.key_scale, plain.double_blocks[1].txt_attn.norm.key_norm.scale)  # type: ignore[union-attr]
    assert torch.equal(base.blocks[4].query_scale, plain.single_blocks[2].norm.query_norm.scale)  # type: ignore[union-attr]
    own = plain.state_dict()
    assert all(torch.equal(tensor, own[name]) for name, tensor in base.io.state_dict().items())
    assert list(base.modulation) == [place.name for place in modulation_places(TINY.depth, TINY.depth_single_blocks)]
    for name, linear in base.modulation.items():
        assert torch.equal(linear.weight, own[f"{name}.weight"])
        assert torch.equal(linear.bias, own[f"{name}.bias"])  # type: ignore[arg-type]


@pytest.mark.parametrize("rows", [False, True])
@pytest.mark.parametrize("prefix", ["", "model.diffusion_model."])
def test_scaled_fp8_files_are_taken_as_they_are(rows: bool, prefix: str, tmp_path: Path) -> None:
    tensors = scaled_fp8(random_tensors(layout(TINY), scale=3e-4), rows)
    path = write(tmp_path / "m.safetensors", tensors, TINY.to_dict(), prefix)
    base = base_of(path, "fp8", torch.bfloat16, cache_dir=tmp_path / "cache")
    for name, linear in matrices(base).items():
        assert torch.equal(linear.weight.view(torch.uint8), tensors[f"{name}.weight"].view(torch.uint8))
        assert torch.equal(linear.scale, tensors[f"{name}.scale_weight"].expand(linear.out_features))
        assert linear.bias.dtype == torch.bfloat16
    assert not (tmp_path / "cache").exists()  # the file itself is as small
    wide = base_of(path, "int8")
    for name, linear in matrices(wide).items():
        wanted = matrices(base)[name].dequantize()
        assert (linear.dequantize() - wanted).norm() < 0.01 * wanted.norm()


def test_plain_fp8_has_scales_of_one(tmp_path: Path) -> None:
    tensors = {name: tensor.to(torch.float8_e4m3fn) for name, tensor in random_tensors(layout(TINY)).items()}
    base = base_of(write(tmp_path / "m.safetensors", tensors, TINY.to_dict()), "fp8", torch.bfloat16)
    for name, linear in matrices(base).items():
        assert torch.equal(linear.dequantize(), tensors[f"{name}.weight"].float())
        assert torch.equal(linear.scale, torch.ones(linear.out_features))
    assert base.blocks[0].img.query_scale.dtype == torch.bfloat16  # type: ignore[union-attr]


@pytest.mark.parametrize("precision", list(ERRORS))
@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_broken_matrices_are_found(precision: str, bad: float, tmp_path: Path) -> None:
    tensors = random_tensors(layout(TINY))
    tensors["single_blocks.1.linear2.weight"][3, 5] = bad
    path = write(tmp_path / "m.safetensors", tensors, TINY.to_dict())
    with pytest.raises(ModelFileError, match=r"single_blocks\.1\.linear2\.weight has NaN or infinity"):
        base_of(path, precision, cache_dir=tmp_path / "cache")
    assert not list((tmp_path / "cache").rglob("*.*"))


def test_broken_fp8_files_are_found(tmp_path: Path) -> None:
    tensors = scaled_fp8(random_tensors(layout(TINY)), rows=False)
    tensors["single_blocks.1.linear2.weight"].view(torch.uint8)[3, 5] = 0xFF
    with pytest.raises(ModelFileError, match=r"linear2\.weight has NaN"):
        base_of(write(tmp_path / "m.safetensors", tensors, TINY.to_dict()), "fp8")
    tensors = scaled_fp8(random_tensors(layout(TINY)), rows=False)
    tensors["double_blocks.0.img_mlp.0.scale_weight"] = torch.ones(3)
    with pytest.raises(ModelFileError, match=r"scales of an unknown form(.|\n)*img_mlp\.0\.weight.*scale of 3"):
        base_of(write(tmp_path / "m.safetensors", tensors, TINY.to_dict()), "fp8")


def test_the_loader_is_as_strict_as_the_plain_one(tmp_path: Path) -> None:
    tensors = random_tensors(layout(TINY))
    gone = {name: tensor for name, tensor in tensors.items() if name != "single_blocks.0.linear1.bias"}
    with pytest.raises(ModelFileError, match=r"(?s)not complete.*single_blocks\.0\.linear1\.bias"):
        base_of(write(tmp_path / "m.safetensors", gone, TINY.to_dict()), "int8")
    with pytest.raises(ModelFileError, match=r"unexpected: .*img_in\.lost"):
        base_of(write(tmp_path / "m.safetensors", tensors | {"img_in.lost": torch.zeros(1)}, TINY.to_dict()), "int8")
    packed = tensors | {"img_in.bias": torch.zeros(64, dtype=torch.int32)}
    with pytest.raises(ModelFileError, match=r"unusable dtype: img_in\.bias \(I32\)"):
        base_of(write(tmp_path / "m.safetensors", packed, TINY.to_dict()), "int8")


def test_missing_bitsandbytes_is_told_before_anything_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    monkeypatch.setitem(sys.modules, "bitsandbytes.functional", None)
    with pytest.raises(ConfigError, match="bitsandbytes"):
        base_of(tmp_path / "not there", "nf4")


@pytest.mark.parametrize("precision", list(ERRORS))
def test_templates_tell_sizes_before_loading(precision: str, tmp_path: Path) -> None:
    base = base_of(tiny_flux(tmp_path / "m.safetensors"), precision)
    templates = block_templates(TINY, precision, torch.float32)  # type: ignore[arg-type]
    assert [weight_bytes(weights) for weights in templates] == [weight_bytes(weights) for weights in base.blocks]


@pytest.mark.parametrize(("precision", "gigabytes"), [("auto", 17.2), ("fp8", 8.6), ("int8", 8.6), ("nf4", 4.44)])
def test_sizes_of_the_real_model(precision: str, gigabytes: float) -> None:
    templates = block_templates(FluxParams(), precision, torch.bfloat16)  # type: ignore[arg-type]
    assert sum(map(weight_bytes, templates)) / 1e9 == pytest.approx(gigabytes, rel=0.01)


def test_products_wait_for_a_measurement_where_outliers_are_likely(tmp_path: Path) -> None:
    base = base_of(tiny_flux(tmp_path / "m.safetensors"), "int8", choice=Choice("int8"))
    wide = {name for name, linear in matrices(base).items() if not linear.products.forward}
    assert wide == {name for name in matrices(base) if name.endswith(("linear2", "mlp.2"))}
    assert all(linear.products.input_grad for linear in matrices(base).values())


class Rooms:
    """Flat memory for some blocks, as a host pool would give, and what was done with it."""

    def __init__(self, blocks: tuple[int, ...]) -> None:
        self.blocks = blocks
        self.given: dict[int, dict[str, Tensor]] = {}
        self.placed: list[int] = []

    def room(self, block: int, template: BlockWeights) -> dict[str, Tensor] | None:
        assert block not in self.given
        if block not in self.blocks:
            return None
        self.given[block] = {
            name: torch.zeros(tensor.shape, dtype=tensor.dtype) for name, tensor in block_tensors(template).items()
        }
        return self.given[block]

    def place(self, block: int, parts: BlockWeights) -> BlockWeights:
        self.placed.append(block)
        for name, tensor in block_tensors(parts).items() if block in self.given else ():
            assert tensor is self.given[block][name]
        return parts


@pytest.mark.parametrize("precision", list(ERRORS))
def test_blocks_go_straight_to_their_places(precision: str, tmp_path: Path) -> None:
    path = tiny_flux(tmp_path / "m.safetensors")
    plain = base_of(path, precision)
    for _start in ("from the file", "from the copy"):
        rooms = Rooms((1, 3, 4))
        base = base_of(path, precision, cache_dir=tmp_path / "cache", room=rooms.room, place=rooms.place)
        assert rooms.placed == list(range(5))
        assert list(rooms.given) == [1, 3, 4]
        assert same_blocks(base, plain)


@pytest.mark.parametrize(("stored", "precision"), [(torch.bfloat16, "auto"), (torch.float8_e4m3fn, "fp8")])
def test_what_needs_no_packing_never_touches_the_device(stored: torch.dtype, precision: str, tmp_path: Path) -> None:
    """The compute device here has no memory at all, and yet the streamed blocks are whole."""
    tensors = {name: tensor.to(stored) for name, tensor in random_tensors(layout(TINY)).items()}
    path = write(tmp_path / "m.safetensors", tensors, TINY.to_dict())
    rooms = Rooms((0, 1, 2, 3, 4))
    base = load_base(path, device="meta", dtype=torch.bfloat16, precision=precision, room=rooms.room)  # type: ignore[arg-type]
    assert same_blocks(base, base_of(path, precision, torch.bfloat16))
    assert base.io.img_in.weight.is_meta


@pytest.mark.parametrize("precision", list(ERRORS))
def test_progress_counts_the_whole_file_once(precision: str, tmp_path: Path) -> None:
    path = tiny_flux(tmp_path / "m.safetensors")
    told: list[tuple[int, int]] = []
    for _start in ("from the file", "from the copy"):
        told.clear()
        base_of(path, precision, cache_dir=tmp_path / "c", progress=lambda done, total: told.append((done, total)))
        assert told == sorted(told)
        assert told[-1][0] == told[-1][1] == sum(4 * t.numel() for t in random_tensors(layout(TINY)).values())


def test_modulation_layers_can_stay_in_the_file(tmp_path: Path) -> None:
    told: list[int] = []
    path = tiny_flux(tmp_path / "m.safetensors")
    base = base_of(path, modulation_device=None, progress=lambda done, total: told.append(total - done))
    assert base.modulation == {}
    assert told[-1] == 0
    assert "double_blocks.0.img_mod.lin.weight" in base.part.tensors


@pytest.mark.parametrize("precision", list(ERRORS))
def test_a_block_can_be_read_again(precision: str, tmp_path: Path) -> None:
    path = tiny_flux(tmp_path / "m.safetensors")
    base = base_of(path, precision, cache_dir=tmp_path / "cache")
    assert base.reread is not None
    base.blocks = [base.reread(block) for block in range(5)]
    assert same_blocks(base, base_of(path, precision))
    if precision != "auto":
        assert base_of(path, precision).reread is None  # it would have to be packed again


@pytest.mark.parametrize("swap", [0, 2])
@pytest.mark.parametrize(("stored", "precision"), [(torch.bfloat16, "int8"), (torch.float8_e4m3fn, "fp8")])
def test_what_is_decided_outlives_a_release(stored: torch.dtype, precision: str, swap: int, tmp_path: Path) -> None:
    tensors = {name: tensor.to(stored) for name, tensor in random_tensors(layout(TINY)).items()}
    path = write(tmp_path / "m.safetensors", tensors, TINY.to_dict())
    for start in ("from the file", "from the copy"):
        pool = HostPool(free_bytes=2**40)
        placement = Placement(plan_blocks(block_templates(TINY, precision, torch.float32), swap), pool, CPU)  # type: ignore[arg-type]
        places = {"room": placement.room, "place": placement.place}
        base = base_of(path, precision, cache_dir=tmp_path / "cache", choice=Choice(precision), **places)  # type: ignore[arg-type]
        linears = packed_linears(base.blocks)
        decided = {name: (number % 2 == 0, number % 3 == 0) for number, name in enumerate(linears)}
        decide(linears, decided)
        base.blocks.clear()
        source = placement.source(reread=base.reread)
        for _pause in range(2):
            source.leave()
            source.come_back()
            found = {}
            for block in range(5):
                with source.use(block) as weights:
                    found[block] = weights
            assert decisions(packed_linears([found[block] for block in range(5)])) == decided, start


def test_only_one_tensor_at_a_time_is_in_hand(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    alive: list[weakref.ref[Any]] = []
    most = 0
    plain = weights._read

    def counted(*args: Any) -> Tensor:
        nonlocal most
        raw = plain(*args)
        alive.append(weakref.ref(raw.untyped_storage()))
        most = max(most, sum(ref() is not None for ref in alive))
        return raw

    monkeypatch.setattr(weights, "_read", counted)
    base = base_of(tiny_flux(tmp_path / "m.safetensors"), "int8", torch.bfloat16)
    gc.collect()
    assert len(alive) == len(layout(TINY))
    assert most <= 2
    assert not any(ref() is not None for ref in alive)
    assert all(isinstance(linear, Packed8) for linear in matrices(base).values())


@pytest.mark.skipif(not os.access("/proc/self/clear_refs", os.W_OK), reason="the peak of memory cannot be read here")
@pytest.mark.parametrize("start", ["from the file", "from the copy"])
def test_memory_of_a_larger_file(start: str, tmp_path: Path) -> None:
    """A process that packs 108 MB of float32 to int8 grows by what it keeps, not by a second copy."""
    params = FluxParams(hidden_size=512, num_heads=16, axes_dim=(8, 12, 12), depth=2, depth_single_blocks=2)
    path = tmp_path / "m.safetensors"
    write(path, {name: torch.ones(shape) for name, shape in layout(params).items()}, params.to_dict())
    call = (
        f"load_base(Path({str(path)!r}), device='cpu', dtype=torch.bfloat16, precision='int8', "
        f"cache_dir=Path({str(tmp_path)!r}), modulation_device=None)\n"
    )
    code = (
        "import torch\n"
        "from pathlib import Path\n"
        "from engine.memory.frozen import block_tensors\n"
        "from engine.memory.load import load_base\n"
        "read = lambda key: 1024 * int(open('/proc/self/status').read().split(key + ':')[1].split()[0])\n"
        "torch.ones(64, 64, dtype=torch.bfloat16) @ torch.ones(64, 64, dtype=torch.bfloat16)\n"
        "open('/proc/self/clear_refs', 'w').write('5')\n"
        "before = read('VmRSS')\n"
        f"base = {call}"
        "io = sum(p.numel() * 2 for p in base.io.parameters())\n"
        "kept = sum(tensor.nbytes for block in base.blocks for tensor in block_tensors(block).values())\n"
        "print(kept + io, read('VmHWM') - before, len(base.notes))\n"
    )
    root = Path(__file__).resolve().parents[2]
    for _ in range(1 + (start == "from the copy")):
        # Else malloc takes some large pieces from its heap, and whether it can give those back is chance.
        env = os.environ | {"MALLOC_MMAP_THRESHOLD_": "131072"}
        command = [sys.executable, "-c", code]
        out = subprocess.run(command, cwd=root, capture_output=True, text=True, check=True, env=env).stdout
    kept, grown, notes = map(int, out.split())
    assert notes == 1
    assert kept > 17e6
    assert grown < kept + 0.25 * path.stat().st_size
