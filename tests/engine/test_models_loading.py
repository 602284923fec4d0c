"""Loading: strict, one tensor at a time, every precision that files come in, and clear words for bad ones."""

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
from model_files import TINY, random_tensors, sparse_file, tiny_flux, write
from safetensors.torch import load_file, save_file
from torch import Tensor

import engine.models.weights as weights
from engine.errors import ModelFileError
from engine.memory.load import load_base
from engine.models.detect import detect
from engine.models.flux import FluxParams, FluxTransformer
from engine.models.flux_file import flux_params, layout, load_flux
from engine.models.header import read_header
from engine.models.parts import Part, find_part

CPU = "cpu"


def part_of(path: Path, kind: str = "transformer") -> Part:
    part = find_part(read_header(path), kind)
    assert part is not None
    return part


@pytest.mark.parametrize("prefix", ["", "model.diffusion_model."])
def test_weights_arrive_unchanged_and_frozen(prefix: str, tmp_path: Path) -> None:
    path = tiny_flux(tmp_path / "m.safetensors", prefix=prefix)
    model = load_flux(path, CPU, torch.float32)
    assert model.params == TINY
    assert not model.training
    stored = random_tensors(layout(TINY))
    for name, parameter in model.named_parameters():
        assert not parameter.requires_grad
        assert torch.equal(parameter, stored[name]), name


@pytest.mark.parametrize(
    "changes",
    [
        {"guidance_embed": False},
        {"qkv_bias": False},
        {"mlp_ratio": 8 / 3},
        {"depth": 0},
        {"depth_single_blocks": 0, "depth": 1},
        {"in_channels": 384, "out_channels": 64},
        {"in_channels": 32, "out_channels": 16},
        {"hidden_size": 96, "num_heads": 2, "axes_dim": (16, 16, 16), "theta": 500},
    ],
)
def test_sizes_come_from_the_header(changes: dict[str, Any], tmp_path: Path) -> None:
    params = FluxParams(**{**TINY.to_dict(), "axes_dim": TINY.axes_dim, **changes})
    path = tiny_flux(tmp_path / "m.safetensors", params)
    found = flux_params(part_of(path))
    assert found.mlp_hidden == params.mlp_hidden
    assert {**found.to_dict(), "mlp_ratio": 0} == {**params.to_dict(), "mlp_ratio": 0}


def test_published_values_where_no_params_are(tmp_path: Path) -> None:
    params = FluxParams(hidden_size=256, num_heads=2, depth=1, depth_single_blocks=1, mlp_ratio=3.7)
    path = sparse_file(tmp_path / "m.safetensors", layout(params))
    found = flux_params(part_of(path))
    assert (found.num_heads, found.axes_dim, found.theta) == (2, (16, 56, 56), 10_000)
    assert found.mlp_hidden == params.mlp_hidden == 947


def test_unknown_heads_are_an_error(tmp_path: Path) -> None:
    path = write(tmp_path / "m.safetensors", random_tensors(layout(TINY)))
    with pytest.raises(ModelFileError, match=r"(?s)heads are 32 wide.*params"):
        load_flux(path, CPU, torch.float32)
    assert "heads" in detect(path).note


@pytest.mark.parametrize(
    ("key", "value", "tensor"),
    [
        ("hidden_size", 128, "img_in.weight"),
        ("depth", 3, "double_blocks.1"),
        ("depth_single_blocks", 2, "single_blocks.2"),
        ("num_heads", 4, "query_norm"),
        ("in_channels", 65, "img_in.weight"),
        ("out_channels", 16, "final_layer.linear.weight"),
        ("vec_in_dim", 768, "vector_in.in_layer.weight"),
        ("context_in_dim", 4096, "txt_in.weight"),
        ("mlp_ratio", 3.0, "img_mlp"),
        ("guidance_embed", False, "guidance_in"),
        ("qkv_bias", False, "qkv.bias"),
        ("axes_dim", [8, 12, 14], "query_norm"),
        ("hidden_size", "64", "img_in.weight"),
    ],
)
def test_a_clash_of_params_and_shapes(key: str, value: Any, tensor: str, tmp_path: Path) -> None:
    path = tiny_flux(tmp_path / "m.safetensors", **{key: value})
    with pytest.raises(ModelFileError) as caught:
        load_flux(path, CPU, torch.float32)
    assert key in caught.value.detail
    assert repr(value) in caught.value.detail
    assert tensor in caught.value.detail


@pytest.mark.parametrize(
    "params", ["{", "[1]", '{"theta": -1}', '{"theta": 1e400}', '{"axes_dim": [8, "x"]}', "[" * 9999]
)
def test_broken_params(params: str, tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    save_file(random_tensors(layout(TINY)), path, metadata={"params": params})
    with pytest.raises(ModelFileError, match="params"):
        load_flux(path, CPU, torch.float32)


def test_missing_tensors_are_named_and_counted(tmp_path: Path) -> None:
    tensors = random_tensors(layout(TINY))
    gone = sorted(name for name in tensors if name.startswith("double_blocks.0."))
    path = write(tmp_path / "m.safetensors", {n: t for n, t in tensors.items() if n not in gone}, TINY.to_dict())
    with pytest.raises(ModelFileError, match="not complete") as caught:
        load_flux(path, CPU, torch.float32)
    assert sum(name in caught.value.detail for name in gone) == 20
    assert f"and {len(gone) - 20} more" in caught.value.detail
    info = detect(path)
    assert not info.complete
    assert sorted(info.missing) == gone


def test_unexpected_tensors_are_named(tmp_path: Path) -> None:
    tensors = random_tensors(layout(TINY)) | {"img_in.lost": torch.zeros(1), "time_in.extra": torch.zeros(1)}
    path = write(tmp_path / "m.safetensors", tensors, TINY.to_dict())
    with pytest.raises(ModelFileError, match=r"unexpected: .*img_in\.lost.*time_in\.extra"):
        load_flux(path, CPU, torch.float32)


def test_shape_clashes_are_named(tmp_path: Path) -> None:
    tensors = random_tensors(layout(TINY)) | {"time_in.out_layer.weight": torch.zeros(64, 63)}
    path = write(tmp_path / "m.safetensors", tensors, TINY.to_dict())
    with pytest.raises(ModelFileError, match=r"time_in\.out_layer\.weight is 64x63, expected 64x64"):
        load_flux(path, CPU, torch.float32)


def test_the_loader_itself_is_strict(tmp_path: Path) -> None:
    """What detection lets through must still fit the module tensor by tensor."""
    tensors = random_tensors(layout(TINY))
    del tensors["img_in.bias"]
    tensors |= {"more": torch.zeros(1), "img_in.weight": torch.zeros(64, 1)}
    part = part_of(write(tmp_path / "m.safetensors", tensors))
    with torch.device("meta"):
        model = FluxTransformer(TINY)
    with pytest.raises(ModelFileError, match=r"(?s)missing: img_in\.bias.*unexpected: more.*64x1, expected 64x64"):
        weights.load_weights(model, part, device=CPU, dtype=torch.float32)


def test_whole_numbers_are_no_weights(tmp_path: Path) -> None:
    tensors = random_tensors(layout(TINY)) | {"img_in.bias": torch.zeros(64, dtype=torch.int32)}
    path = write(tmp_path / "m.safetensors", tensors, TINY.to_dict())
    with pytest.raises(ModelFileError, match=r"unusable dtype: img_in\.bias \(I32\)"):
        load_flux(path, CPU, torch.float32)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_broken_numbers_are_found(bad: float, tmp_path: Path) -> None:
    tensors = random_tensors(layout(TINY))
    tensors["single_blocks.1.norm.key_norm.scale"][3] = bad
    path = write(tmp_path / "m.safetensors", tensors, TINY.to_dict())
    with pytest.raises(ModelFileError, match=r"single_blocks\.1\.norm\.key_norm\.scale has NaN or infinity"):
        load_flux(path, CPU, torch.float32)


def test_a_file_that_shrinks_while_it_is_read(tmp_path: Path) -> None:
    path = tiny_flux(tmp_path / "m.safetensors")
    part = part_of(path)
    with open(path, "r+b") as file:
        file.truncate(path.stat().st_size - 100)
    with torch.device("meta"):
        model = FluxTransformer(TINY)
    with pytest.raises(ModelFileError, match="ended early"):
        weights.load_weights(model, part, device=CPU, dtype=torch.float32)


@pytest.mark.parametrize(
    "stored", [torch.float16, torch.bfloat16, torch.float32, torch.float8_e4m3fn, torch.float8_e5m2]
)
@pytest.mark.parametrize("wanted", [torch.float32, torch.bfloat16, torch.float16])
def test_precisions(stored: torch.dtype, wanted: torch.dtype, tmp_path: Path) -> None:
    tensors = {name: tensor.to(stored) for name, tensor in random_tensors(layout(TINY)).items()}
    path = write(tmp_path / "m.safetensors", tensors, TINY.to_dict())
    for name, parameter in load_flux(path, CPU, wanted).named_parameters():
        assert parameter.dtype == wanted
        assert torch.equal(parameter, tensors[name].to(wanted)), name


def scaled(tensors: dict[str, Tensor], new_names: bool, dtype: torch.dtype, rows: bool = False) -> dict[str, Tensor]:
    """fp8 with scales for every matrix, in the older or the newer naming."""
    out: dict[str, Tensor] = {} if new_names else {"scaled_fp8": torch.zeros(2, dtype=dtype)}
    for name, tensor in tensors.items():
        if tensor.ndim < 2:
            out[name] = tensor.to(torch.bfloat16)
            continue
        top = tensor.abs().amax(dim=1) if rows else tensor.abs().max()
        scale = top / torch.finfo(dtype).max
        out[name] = (tensor / (scale[:, None] if rows else scale)).to(dtype)
        base = name.removesuffix(".weight")
        out[f"{base}.weight_scale" if new_names else f"{base}.scale_weight"] = scale.float()
        out[f"{base}.input_scale" if new_names else f"{base}.scale_input"] = torch.ones(())
    return out


@pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.float8_e5m2])
@pytest.mark.parametrize("new_names", [False, True])
@pytest.mark.parametrize("rows", [False, True])
@pytest.mark.parametrize("prefix", ["", "model.diffusion_model."])
def test_scaled_fp8(dtype: torch.dtype, new_names: bool, rows: bool, prefix: str, tmp_path: Path) -> None:
    tensors = random_tensors(layout(TINY), scale=3e-4)
    path = write(tmp_path / "m.safetensors", scaled(tensors, new_names, dtype, rows), TINY.to_dict(), prefix)
    assert detect(path).dtype.endswith(" scaled")
    step = 2.0 ** (-3 if dtype == torch.float8_e4m3fn else -2)
    for name, parameter in load_flux(path, CPU, torch.float32).named_parameters():
        wanted = tensors[name]
        assert (parameter - wanted).abs().max() <= step * wanted.abs().max(), name
        assert parameter.abs().max() < 4 * wanted.abs().max()


def test_scaled_fp8_is_multiplied_in_the_compute_type(tmp_path: Path) -> None:
    tensors = scaled(random_tensors(layout(TINY)), True, torch.float8_e4m3fn)
    path = write(tmp_path / "m.safetensors", tensors, TINY.to_dict())
    model = load_flux(path, CPU, torch.bfloat16)
    wanted = tensors["img_in.weight"].to(torch.bfloat16) * tensors["img_in.weight_scale"]
    assert torch.equal(model.img_in.weight, wanted)


def test_scales_of_unknown_form(tmp_path: Path) -> None:
    tensors = scaled(random_tensors(layout(TINY)), True, torch.float8_e4m3fn)
    tensors["img_in.weight_scale"] = torch.ones(3)
    path = write(tmp_path / "m.safetensors", tensors, TINY.to_dict())
    with pytest.raises(ModelFileError, match="scales of an unknown form"):
        load_flux(path, CPU, torch.float32)


def test_block_scales_are_refused_by_their_type(tmp_path: Path) -> None:
    tensors = scaled(random_tensors(layout(TINY)), True, torch.float8_e4m3fn)
    tensors["img_in.weight_scale"] = torch.zeros(64, 2, dtype=torch.uint8)
    path = write(tmp_path / "m.safetensors", tensors, TINY.to_dict())
    with pytest.raises(ModelFileError, match=r"unusable dtype: img_in\.weight_scale \(U8\)"):
        load_flux(path, CPU, torch.float32)


def test_only_one_tensor_at_a_time_is_in_hand(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Converting on the way, so that what was read and what is kept are different memory."""
    path = tiny_flux(tmp_path / "m.safetensors")
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
    model = load_flux(path, CPU, torch.bfloat16)
    gc.collect()
    assert len(alive) == len(list(model.parameters()))
    assert most <= 2
    assert not any(ref() is not None for ref in alive)


def test_what_was_read_is_kept_without_a_copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tiny_flux(tmp_path / "m.safetensors")
    places = set()
    plain = weights._read

    def noted(*args: Any) -> Tensor:
        raw = plain(*args)
        places.add(raw.data_ptr())
        return raw

    monkeypatch.setattr(weights, "_read", noted)
    model = load_flux(path, CPU, torch.float32)
    assert {parameter.data_ptr() for parameter in model.parameters()} == places


@pytest.mark.skipif(not os.access("/proc/self/clear_refs", os.W_OK), reason="the peak of memory cannot be read here")
def test_memory_of_a_larger_file(tmp_path: Path) -> None:
    """A process that loads 108 MB of float32 as bfloat16 grows by the 54 MB it keeps, not by the file."""
    params = FluxParams(hidden_size=512, num_heads=16, axes_dim=(8, 12, 12), depth=2, depth_single_blocks=2)
    path = tmp_path / "m.safetensors"
    write(path, {name: torch.zeros(shape) for name, shape in layout(params).items()}, params.to_dict())
    code = (
        "import torch\n"
        "from pathlib import Path\n"
        "from engine.models.flux_file import load_flux\n"
        "read = lambda key: 1024 * int(open('/proc/self/status').read().split(key + ':')[1].split()[0])\n"
        "open('/proc/self/clear_refs', 'w').write('5')\n"
        "before = read('VmRSS')\n"
        f"model = load_flux(Path({str(path)!r}), 'cpu', torch.bfloat16)\n"
        "print(sum(p.numel() * 2 for p in model.parameters()), read('VmHWM') - before)\n"
    )
    root = Path(__file__).resolve().parents[2]
    out = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True).stdout
    kept, grown = map(int, out.split())
    assert kept > 50e6
    assert grown < kept + 0.4 * path.stat().st_size


def test_params_round_trip_through_a_file(tmp_path: Path) -> None:
    path = tiny_flux(tmp_path / "m.safetensors")
    assert flux_params(part_of(path)) == TINY
    assert set(load_file(path)) == set(layout(TINY))


@pytest.mark.parametrize("how", ["cut", "overwritten", "grown"])
@pytest.mark.parametrize("load", ["whole", "packed"])
def test_a_file_changed_while_it_is_read_is_refused(how: str, load: str, tmp_path: Path) -> None:
    """A copy that still runs, or a second program: what was read may be half of one file and half of another."""
    path = tiny_flux(tmp_path / "m.safetensors")
    size = path.stat().st_size
    told: list[int] = []

    def change(done: int, total: int) -> None:
        told.append(done)
        if len(told) != 3:
            return
        if how == "cut":
            os.truncate(path, size // 2)
        with open(path, "r+b") as file:
            file.seek(size - 8 if how == "overwritten" else 0, 2 if how == "grown" else 0)
            file.write(b"\1" if how != "cut" else b"")
        os.utime(path, (1, 1))  # the change may come within one tick of the file system's clock

    with pytest.raises(ModelFileError) as refused:
        if load == "whole":
            part = part_of(path)
            with torch.device("meta"):
                model = FluxTransformer(flux_params(part))
            weights.load_weights(model, part, device=CPU, dtype=torch.float32, progress=change)
        else:
            load_base(
                path,
                device=CPU,
                dtype=torch.bfloat16,
                precision="int8",
                progress=change,
                cache_dir=tmp_path / "cache",
            )
    wanted = "ended early" if how == "cut" else "changed while it was read"
    assert wanted in f"{refused.value.title} {refused.value.detail}"
    assert len(told) >= 3
    assert not list(tmp_path.rglob("cache/base/*"))  # no copy of it is kept for the next start
