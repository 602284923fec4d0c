"""Hostile weights, made by code: what each file is, and the words with which it is refused."""

from __future__ import annotations

import io
import json
import pickle
import zipfile
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save

BASE = "lora_unet_double_blocks_0_img_attn_proj"
_DIFFUSERS = "transformer.transformer_blocks.0.attn.to_out.0"


def sealed(header: object, data: bytes = b"", length: int | None = None) -> bytes:
    """A safetensors file with this header, raw bytes or to be made JSON, and maybe another length than its own."""
    raw = header if isinstance(header, bytes) else json.dumps(header).encode()
    return (len(raw) if length is None else length).to_bytes(8, "little") + raw + data


def entry(begin: int = 0, end: int = 8, dtype: object = "F32", shape: object = (2,)) -> dict[str, object]:
    """One tensor in a header."""
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


def headers() -> dict[str, tuple[bytes, str]]:
    """Files whose header is refused before anything else is read, and a pattern for the reason."""
    one = b'"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}'
    eight = bytes(8)
    return {
        "empty": (b"", "the file is empty"),
        "three-bytes": (b"abc", "too few for a header"),
        "length-2-63": (sealed({}, length=2**63), f"header length {2**63}"),
        "length-2-64": (sealed({}, length=2**64 - 1), f"header length {2**64 - 1}"),
        "length-beyond": (sealed({}, length=500), "the header wants 500 bytes, the file has 10"),
        "header-90-mb": (sealed({}, length=90 * 2**20), "header length 94371840, expected at most 16777216"),
        "metadata-2-mb": (sealed({"__metadata__": {"a": "x" * 2**21}}), "__metadata__ is larger than 1048576"),
        "metadata-number": (sealed({"__metadata__": {"a": 1}}), "__metadata__ must map strings to strings"),
        "metadata-nested": (sealed({"__metadata__": {"a": {"b": "c"}}}), "__metadata__ must map"),
        "metadata-list": (sealed({"__metadata__": ["a"]}), "__metadata__ must map"),
        "double-name": (sealed(b"{" + one + b"," + one + b"}", eight), "the name 'a' appears twice"),
        "double-metadata": (sealed(b'{"__metadata__":{},"__metadata__":{}}'), "appears twice"),
        "dims-2000": (sealed({"a": entry(shape=[1] * 1999 + [2])}, eight), "at most 8 whole numbers"),
        "tensors-20001": (sealed({f"t{n}": entry(0, 0, shape=[0]) for n in range(20_001)}), "names 20001 tensors"),
        "escape-name": (sealed({"a\x1b]52;c;QQ==\x07": entry()}, eight), r"tensor name 'a\\\\?x1b"),
        "c1-name": (sealed({"a\x9b2J": entry()}, eight), "tensor name"),
        "bidi-name": (sealed({"a\u202eb": entry()}, eight), "tensor name"),
        "path-name": (sealed({"../../.ssh/id": entry()}, eight), "tensor name '../../.ssh/id'"),
        "nul-name": (sealed({"a\0b": entry()}, eight), "tensor name"),
        "long-name": (sealed({"a" * 300: entry()}, eight), "at most 256 of them"),
        "surrogate-name": (sealed(b"{" + one.replace(b"a", b"\\ud800", 1) + b"}", eight), "tensor name"),
        "hole": (sealed({"a": entry(8, 16)}, bytes(16)), r"leaves a hole before it \(8, expected 0\)"),
        "overlap": (sealed({"a": entry(), "b": entry(4, 12)}, bytes(12)), r"overlaps the one before it \(4, exp"),
        "trailing": (sealed({"a": entry()}, bytes(9)), "1 bytes follow the last tensor"),
        "short": (sealed({"a": entry()}, bytes(7)), "7 of 8 bytes of data: the file is truncated"),
        "size": (sealed({"a": entry(shape=[3])}, eight), "F32 3 is 12 bytes, has 8"),
        "overflow": (sealed({"a": entry(shape=[2**62, 2**62])}, eight), "is 850"),
        "negative": (sealed({"a": entry(shape=[-2])}, eight), "shape must be"),
        "fraction": (sealed({"a": entry(shape=[2.0])}, eight), "shape must be"),
        "true": (sealed({"a": entry(shape=[True, 2])}, eight), "shape must be"),
        "reversed": (sealed({"a": entry(8, 0)}, eight), "the first not larger"),
        "dtype": (sealed({"a": entry(dtype="F3")}, eight), "the unknown dtype 'F3'"),
        "more-fields": (sealed({"a": entry() | {"x": 1}}, eight), "exactly dtype, shape and data_offsets"),
        "deep": (sealed(b'{"a":' * 90_000 + b"1" + b"}" * 90_000), "not clean JSON"),
        "digits": (sealed(b'{"a":{"dtype":"F32","shape":[' + b"9" * 5000 + b"]}}"), "not clean JSON"),
        "nan": (sealed(b'{"a":{"dtype":"F32","shape":[NaN],"data_offsets":[0,8]}}', eight), "NaN is no JSON number"),
        "latin-1": (sealed(b'{"\xe9":1}'), "not clean JSON"),
        "pickle": (pickle.dumps({"a": 1}, protocol=2), "first bytes are those of a Python pickle"),
        "zip-of-pickle": (_zipped(pickle.dumps({"a": 1})), "a zip archive, the form in which PyTorch writes pickles"),
        "web-page": (b"<!doctype html><title>Sign in</title>" + bytes(64), "a web page"),
        "git-lfs": (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "a Git LFS pointer"),
        "gguf": (b"GGUF" + bytes(64), "a GGUF file"),
    }  # fmt: skip


def _zipped(body: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("archive/data.pkl", body)
    return buffer.getvalue()


def lora(base: str = BASE, rank: int = 2, **changes: Any) -> dict[str, torch.Tensor]:
    """A LoRA of one module in kohya's names; what ``changes`` names (down, up, alpha) is as given there."""
    parts = {"down": torch.ones(rank, 8), "up": torch.ones(8, rank), "alpha": torch.tensor(2.0)} | changes
    names = {"down": f"{base}.lora_down.weight", "up": f"{base}.lora_up.weight", "alpha": f"{base}.alpha"}
    return {names[part]: tensor for part, tensor in parts.items() if tensor is not None}


def loras() -> dict[str, tuple[bytes, str]]:
    """Sound safetensors files that are no LoRA to train on from, and a pattern for the reason."""
    nan, inf = float("nan"), float("inf")
    peft = {f"{_DIFFUSERS}.lora_A.weight": torch.ones(2, 8), f"{_DIFFUSERS}.lora_B.weight": torch.ones(8, 2)}
    fp8 = torch.ones(2, 8).to(torch.float8_e4m3fn)
    return {
        "all-nan": (save(lora(down=torch.full((2, 8), nan))), "lora_down.weight holds values that are infinite or"),
        "one-inf": (save(lora(up=torch.ones(8, 2).index_fill(0, torch.tensor(3), inf))), "lora_up.weight holds"),
        "alpha-inf": (save(lora(alpha=torch.tensor(inf))), "alpha holds values that are infinite or not a number"),
        "alpha-nan": (save(lora(alpha=torch.tensor(nan))), "alpha holds values"),
        "alpha-of-two": (save(lora(alpha=torch.ones(2))), r"alpha is \(2,\), wanted one number"),
        "too-wide": (save(lora(alpha=torch.tensor(1e300, dtype=torch.float64))), "alpha holds values"),
        "rank-0": (save(lora(rank=0)), "is empty"),
        "ranks-differ": (save(lora(up=torch.ones(8, 3))), r"down \(2, 8\) and up \(8, 3\) do not multiply"),
        "convolution": (save(lora(down=torch.ones(2, 8, 1, 1))), "do not multiply"),
        "vector": (save(lora(down=torch.ones(2))), "do not multiply"),
        "fp8": (save(lora(down=fp8)), "lora_down.weight is F8_E4M3; wanted one of BF16, F16, F32, F64"),
        "int8": (save(lora(down=torch.ones(2, 8, dtype=torch.int8))), "lora_down.weight is I8; wanted"),
        "no-up": (save(lora(up=None)), "lacks its up matrix"),
        "nothing": (save({}), "its 0 tensors are named neither"),
        "a-model": (save({"double_blocks.0.img_attn.proj.weight": torch.ones(2, 2)}), "its 1 tensors are named"),
        "loha": (save({f"{BASE}.hada_w1_a": torch.ones(2, 2)}), "it is a LoHa"),
        "lokr": (save({f"{BASE}.lokr_w1": torch.ones(2, 2)}), "it is a LoKr"),
        "dora": (save(lora() | {f"{BASE}.dora_scale": torch.ones(8)}), "it is a DoRA"),
        "of-sdxl": (save(lora("lora_unet_input_blocks_4_1_transformer_blocks_0_attn1_to_k")), "input_blocks_4_1"),
        "of-encoders": (save(lora() | lora("lora_te1_text_model_encoder_layers_0_mlp_fc1")), "lora_te1_text_model"),
        "peft-alpha-inf": (_peft(peft, '{"lora_alpha": Infinity}'), "an alpha that is not finite"),
        "peft-alpha-digits": (_peft(peft, '{"lora_alpha": 1' + "0" * 400 + "}"), "cannot be read"),
        "peft-deep": (_peft(peft, "[" * 100_000), "cannot be read"),
        "peft-list": (_peft(peft, "[1]"), "cannot be read"),
        "peft-dora": (_peft(peft, '{"lora_alpha": 2, "use_dora": true}'), "its header sets use_dora"),
        "peft-escape": (_peft(peft, '{"lora_alpha": 2, "alpha_pattern": {"\\u001b]0;t": 1}}'), "which is no module"),
    }  # fmt: skip


def _peft(tensors: dict[str, torch.Tensor], metadata: str) -> bytes:
    return save(tensors, {"lora_adapter_metadata": metadata})


def write(folder: Path, name: str, data: bytes) -> Path:
    """One file of the corpus."""
    path = folder / f"{name}.safetensors"
    path.write_bytes(data)
    return path
