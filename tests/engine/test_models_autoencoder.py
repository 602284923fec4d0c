"""The autoencoder against diffusers' AutoencoderKL on random sizes, and what its loader refuses."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import AutoencoderKL
from model_files import random_tensors, write
from torch import Tensor

from engine.errors import ModelFileError
from engine.models.autoencoder import load_autoencoder
from engine.models.autoencoder_layout import AutoencoderSizes, autoencoder_layout
from engine.models.detect import detect
from engine.models.header import encoder_fingerprint

SMALL = AutoencoderSizes(ch=8, ch_mult=(1, 2, 2, 4), num_res_blocks=1, norm_groups=4)
RENAMED = (
    (r"encoder\.down\.(\d+)\.block\.(\d+)\.", r"encoder.down_blocks.\1.resnets.\2."),
    (r"encoder\.down\.(\d+)\.downsample\.", r"encoder.down_blocks.\1.downsamplers.0."),
    (r"\.mid\.block_1\.", ".mid_block.resnets.0."),
    (r"\.mid\.block_2\.", ".mid_block.resnets.1."),
    (r"\.mid\.attn_1\.norm\.", ".mid_block.attentions.0.group_norm."),
    (r"\.mid\.attn_1\.([qkv])\.", r".mid_block.attentions.0.to_\1."),
    (r"\.mid\.attn_1\.proj_out\.", ".mid_block.attentions.0.to_out.0."),
    (r"\.nin_shortcut\.", ".conv_shortcut."),
    (r"\.norm_out\.", ".conv_norm_out."),
)


def diffusers_name(name: str, levels: int) -> str:
    up = re.match(r"decoder\.up\.(\d+)\.(block\.(\d+)|upsample)\.", name)
    if up:
        inner = f"resnets.{up[3]}" if up[3] else "upsamplers.0"
        name = f"decoder.up_blocks.{levels - 1 - int(up[1])}.{inner}.{name[up.end() :]}"
    for pattern, replacement in RENAMED:
        name = re.sub(pattern, replacement, name)
    return name


def ae_file(path: Path, sizes: AutoencoderSizes = SMALL, prefix: str = "", **params: Any) -> Path:
    stated = {"norm_groups": sizes.norm_groups, **params}
    return write(path, random_tensors(autoencoder_layout(sizes), scale=0.1), stated, prefix)


def reference(sizes: AutoencoderSizes, tensors: dict[str, Tensor]) -> AutoencoderKL:
    widths = tuple(sizes.ch * mult for mult in sizes.ch_mult)
    net = AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * len(widths),
        up_block_types=("UpDecoderBlock2D",) * len(widths),
        block_out_channels=widths,
        layers_per_block=sizes.num_res_blocks,
        latent_channels=sizes.z_channels,
        norm_num_groups=sizes.norm_groups,
        use_quant_conv=False,
        use_post_quant_conv=False,
    )
    state = {}
    for name, tensor in tensors.items():
        linear = re.search(r"attn_1\.(q|k|v|proj_out)\.weight", name)
        state[diffusers_name(name, len(widths))] = tensor[:, :, 0, 0] if linear else tensor
    net.load_state_dict(state, strict=True)
    return net.eval()


@pytest.mark.parametrize(
    "sizes",
    [
        SMALL,
        AutoencoderSizes(ch=16, ch_mult=(1, 2, 4, 4), num_res_blocks=2, norm_groups=2),
        AutoencoderSizes(ch=8, ch_mult=(1, 1, 3), num_res_blocks=3, norm_groups=8),
    ],
)
def test_equal_to_diffusers(sizes: AutoencoderSizes, tmp_path: Path) -> None:
    path = ae_file(tmp_path / "ae.safetensors", sizes)
    found = load_autoencoder(path, "cpu", torch.float32)
    theirs = reference(sizes, random_tensors(autoencoder_layout(sizes), scale=0.1))
    pixels = torch.rand(2, 3, 32, 48, generator=torch.Generator().manual_seed(1)) * 2 - 1
    mean, std = found.encode(pixels)
    with torch.no_grad():
        posterior = theirs.encode(pixels).latent_dist
        wanted = (posterior.mean - 0.1159) * 0.3611
        back = theirs.decode(wanted / 0.3611 + 0.1159).sample
    assert float((mean - wanted).norm() / wanted.norm()) < 1e-5
    assert torch.allclose(std, posterior.std * 0.3611, rtol=1e-5)
    assert float((found.decode(wanted) - back).norm() / back.norm()) < 1e-5
    assert mean.shape == (2, 16, 32 // found.downscale, 48 // found.downscale)


@pytest.mark.parametrize("mult", [(2, 2), (1,), (1, 1, 1, 1, 2)])
def test_other_levels(mult: tuple[int, ...], tmp_path: Path) -> None:
    sizes = AutoencoderSizes(ch=8, ch_mult=mult, num_res_blocks=1, norm_groups=8)
    found = load_autoencoder(ae_file(tmp_path / "ae.safetensors", sizes), "cpu", torch.float32)
    assert found.sizes == sizes
    mean, _ = found.encode(torch.zeros(1, 3, 32, 32))
    assert found.decode(mean).shape == (1, 3, 32, 32)


@pytest.mark.parametrize("prefix", ["", "vae.", "first_stage_model."])
def test_prefixes_scale_and_precision(prefix: str, tmp_path: Path) -> None:
    path = ae_file(tmp_path / "ae.safetensors", prefix=prefix, scale_factor=0.5, shift_factor=0.25)
    plain = load_autoencoder(ae_file(tmp_path / "plain.safetensors"), "cpu", torch.float32)
    found = load_autoencoder(path, "cpu", torch.float32)
    pixels = torch.rand(1, 3, 16, 16)
    raw = plain.encode(pixels)[0] / 0.3611 + 0.1159
    assert torch.allclose(found.encode(pixels)[0], (raw - 0.25) * 0.5, atol=1e-6)
    half = load_autoencoder(path, "cpu", torch.bfloat16)
    mean, std = half.encode(pixels)
    assert mean.dtype == std.dtype == half.decode(mean).dtype == torch.float32
    assert half.fingerprint != found.fingerprint == encoder_fingerprint(path, torch.float32)
    assert half.net.encoder.conv_in.weight.dtype == torch.bfloat16
    assert not any(parameter.requires_grad for parameter in half.net.parameters())


@pytest.mark.parametrize(
    ("params", "says"),
    [
        ({"ch": 16}, r"ch = 16, but encoder\.conv_in\.weight says 8"),
        ({"ch_mult": [1, 2, 4, 4]}, r"ch_mult = \[1, 2, 4, 4\], but .* says \[1, 2, 2, 4\]"),
        ({"num_res_blocks": 2}, "num_res_blocks = 2, but"),
        ({"z_channels": 4}, r"z_channels = 4, but decoder\.conv_in\.weight says 16"),
        ({"norm_groups": 3}, "3 groups do not divide"),
        ({"norm_groups": 0}, "norm_groups = 0"),
        ({"scale_factor": "x"}, "scale_factor"),
        ({"scale_factor": 0}, "scale_factor = 0"),
        ({"ch_mult": "1"}, "ch_mult"),
    ],
)
def test_a_clash_of_params_and_shapes(params: dict[str, Any], says: str, tmp_path: Path) -> None:
    path = ae_file(tmp_path / "ae.safetensors", **params)
    with pytest.raises(ModelFileError, match=says):
        load_autoencoder(path, "cpu", torch.float32)
    assert not detect(path).complete


def test_a_missing_tensor_is_named(tmp_path: Path) -> None:
    tensors = random_tensors(autoencoder_layout(SMALL))
    del tensors["decoder.up.1.block.0.conv1.weight"]
    path = write(tmp_path / "ae.safetensors", tensors, {"norm_groups": 4})
    with pytest.raises(ModelFileError, match=r"missing: decoder\.up\.1\.block\.0\.conv1\.weight"):
        load_autoencoder(path, "cpu", torch.float32)


def test_an_sd_autoencoder_is_refused(tmp_path: Path) -> None:
    sizes = AutoencoderSizes(
        ch=8, ch_mult=(1, 2, 2, 4), num_res_blocks=1, norm_groups=4, z_channels=4, quant_conv=True
    )
    path = write(tmp_path / "vae.safetensors", random_tensors(autoencoder_layout(sizes)), {"norm_groups": 4})
    assert (detect(path).family, detect(path).complete) == ("sd", True)
    with pytest.raises(ModelFileError, match=r"(?s)4 latent channels.*ae\.safetensors"):
        load_autoencoder(path, "cpu", torch.float32)
