"""What a file says about itself, and above all what it does not."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from engine.config import RunConfig
from engine.errors import ModelFileError
from engine.lora.formats import save_lora
from engine.lora.metadata import MAX_TAGS, LoraFacts, build_metadata, legacy_model_hash, read_metadata
from engine.lora.targets import Target


def _config(**tables: Any) -> RunConfig:
    secret = Path("/home/secretuser/secretfolder")
    data: dict[str, Any] = {
        "name": "run",
        "model": {
            "transformer": secret / "flux1-dev.safetensors",
            "autoencoder": secret / "ae.safetensors",
            "clip_l": secret / "clip_l.safetensors",
            "t5": secret / "t5.safetensors",
        },
        "dataset": {"folders": [{"path": secret / "10_secretconcept"}], "captions": {"trigger_word": "ohwx"}},
        "runs_dir": secret,
        "sampling": {"prompts": [{"prompt": "a secretprompt"}]},
    }
    return RunConfig.model_validate({**data, **tables})


def _facts(config: RunConfig, **changes: Any) -> LoraFacts:
    facts = LoraFacts(
        config=config,
        architecture="flux-1-dev/lora",
        base_model_version="flux1",
        output_name="run-e0002",
        session_id="1234",
        started_at=1_700_000_000.0,
        saved_at=1_700_000_600.0,
        step=20,
        epoch=2,
        total_steps=100,
        total_epochs=10,
        num_train_images=12,
        num_reg_images=3,
        batches_per_epoch=10,
        tool="lorakiln 0.1.0",
        buckets={(1024, 1024): 9, (832, 1216): 3},
        tag_counts={"10_secretconcept": {"secrettag": 5, "other": 7}},
        folders={"10_secretconcept": (10, 12)},
    )
    return replace(facts, **changes)


def test_all_values_are_strings_and_the_known_keys_are_there() -> None:
    metadata = build_metadata(_facts(_config(lora={"rank": 8, "alpha": 4.0, "ranks": {"img_mlp": 2}})))
    assert all(isinstance(key, str) and isinstance(value, str) for key, value in metadata.items())
    assert metadata["ss_network_module"] == "networks.lora_flux"
    assert (metadata["ss_network_dim"], metadata["ss_network_alpha"]) == ("8", "4.0")
    assert json.loads(metadata["ss_network_args"]) == {"targets": "default", "img_mlp_dim": 2}
    assert metadata["ss_base_model_version"] == "flux1"
    assert (metadata["ss_steps"], metadata["ss_epoch"], metadata["ss_num_epochs"]) == ("20", "2", "10")
    assert metadata["ss_sd_model_name"] == "flux1-dev.safetensors"
    assert metadata["ss_model_prediction_type"] == "raw"
    assert metadata["ss_resolution"] == "(1024, 1024)"
    assert json.loads(metadata["ss_bucket_info"])["buckets"]["0"] == {"resolution": [832, 1216], "count": 3}
    assert metadata["modelspec.sai_model_spec"] == "1.0.1"
    assert metadata["modelspec.architecture"] == "flux-1-dev/lora"
    assert metadata["modelspec.title"] == "run-e0002"
    assert metadata["modelspec.date"] == "2023-11-14T22:23:20Z"
    assert metadata["modelspec.trigger_phrase"] == "ohwx"


def test_guidance_is_none_where_the_model_has_none() -> None:
    assert build_metadata(_facts(_config()))["ss_guidance_scale"] == "1.0"
    assert build_metadata(_facts(_config(), guidance_embedded=False))["ss_guidance_scale"] == "None"


def test_nothing_private_is_written_unasked() -> None:
    text = json.dumps(build_metadata(_facts(_config())))
    assert "secret" not in text
    for key in ("tag_frequency", "dataset_dirs", "comment", "prompt", "datasets"):
        assert f"ss_{key}" not in text


@pytest.mark.parametrize(
    ("saving", "keys"),
    [
        ({"include_prompts": True}, {"ss_sample_prompts"}),
        ({"include_folder_names": True}, {"ss_dataset_dirs"}),
        ({"include_tag_counts": True}, {"ss_tag_frequency"}),
        ({"comment": "made with care"}, {"ss_training_comment", "modelspec.description"}),
        ({"author": "me"}, {"modelspec.author"}),
    ],
)
def test_each_wish_adds_its_keys_alone(saving: dict[str, Any], keys: set[str]) -> None:
    plain = build_metadata(_facts(_config()))
    asked = build_metadata(_facts(_config(saving=saving)))
    assert set(asked) - set(plain) == keys


def test_tag_counts_name_folders_only_when_folders_are_asked_for() -> None:
    tags = json.loads(build_metadata(_facts(_config(saving={"include_tag_counts": True})))["ss_tag_frequency"])
    assert tags == {"0": {"other": 7, "secrettag": 5}}
    both = _config(saving={"include_tag_counts": True, "include_folder_names": True})
    assert list(json.loads(build_metadata(_facts(both))["ss_tag_frequency"])) == ["10_secretconcept"]


def test_tag_counts_are_bounded() -> None:
    many = {"f": {**{f"tag{n:05d}": n for n in range(10_000)}, "a sentence " * 20: 20_000}}
    config = _config(saving={"include_tag_counts": True})
    tags = json.loads(build_metadata(_facts(config, tag_counts=many))["ss_tag_frequency"])["0"]
    assert len(tags) == MAX_TAGS and min(tags.values()) == 8000


def test_base_model_hash_is_kohyas(tmp_path: Path) -> None:
    data = bytes(range(256)) * 4096 + b"x" * 70_000
    (tmp_path / "base.safetensors").write_bytes(data)
    wanted = hashlib.sha256(data[0x100000:0x110000]).hexdigest()[:8]
    assert legacy_model_hash(tmp_path / "base.safetensors") == wanted


def test_metadata_survives_the_file(tmp_path: Path) -> None:
    metadata = build_metadata(_facts(_config()))
    target = Target("single_blocks.0.linear2", "single", 8, 6, 2, 2.0)
    state = {f"{target.name}.lora_down.weight": torch.ones(2, 8), f"{target.name}.lora_up.weight": torch.ones(6, 2)}
    save_lora(tmp_path / "a.safetensors", state, [target], "kohya", "bfloat16", metadata)
    back = read_metadata(tmp_path / "a.safetensors")
    assert back.items() >= metadata.items()
    assert set(back) - set(metadata) == {"sshs_model_hash", "sshs_legacy_hash", "modelspec.hash_sha256"}


def test_a_file_without_a_header_is_a_model_file_error(tmp_path: Path) -> None:
    (tmp_path / "a.safetensors").write_bytes(b"no header")
    with pytest.raises(ModelFileError):
        read_metadata(tmp_path / "a.safetensors")


def test_import_needs_no_torch() -> None:
    code = "import sys, engine.lora.metadata, engine.lora.targets; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
