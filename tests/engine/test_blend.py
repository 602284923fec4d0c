"""Blending LoRA files: the average of their updates, against full matrices, in every layout."""

import json
from pathlib import Path

import pytest
import torch
from flux_reference import TINY, all_kinds
from safetensors.torch import load_file

from engine.config import LoraConfig
from engine.errors import ConfigError, ModelFileError
from engine.lora.adapter import describe_linears
from engine.lora.blend import Part, blend, blend_files, refactored
from engine.lora.formats import load_lora, save_lora
from engine.lora.metadata import read_metadata
from engine.lora.targets import select_targets
from engine.models.flux import FluxTransformer

with torch.device("meta"):
    SHAPES = describe_linears(FluxTransformer(TINY), all_kinds(TINY))

NOW = 1_700_000_000.0


def made(seed, near=None, noise=0.05, **settings):
    """A LoRA's state and targets; ``near`` another one, as the next epoch's is."""
    targets = select_targets(
        SHAPES, LoraConfig.model_validate({"rank": 4, "alpha": 3.0, "targets": "all", **settings})
    )
    generator = torch.Generator().manual_seed(seed)
    state = {}
    for target in targets:
        for part, shape in (
            ("down", (target.rank, target.in_features)),
            ("up", (target.out_features, target.rank)),
        ):
            name = f"{target.name}.lora_{part}.weight"
            drawn = torch.randn(shape, generator=generator)
            state[name] = drawn if near is None else near[name] + noise * drawn
    return state, targets


def full(state, target):
    ups, downs = (state[f"{target.name}.lora_{part}.weight"].double() for part in ("up", "down"))
    return target.scale * ups @ downs


def best_of_rank(matrix, rank):
    """The nearest matrix of a rank, by a decomposition of the whole."""
    u, sizes, v = torch.linalg.svd(matrix, full_matrices=False)
    return (u[:, :rank] * sizes[:rank]) @ v[:rank], float(sizes[rank:].norm() / sizes.norm())


@pytest.mark.parametrize("layout", ["kohya", "diffusers"])
def test_a_blend_is_the_nearest_of_its_rank_to_the_average_of_full_matrices(tmp_path, layout):
    first, targets = made(1, ranks={"img_mlp": 2}, alphas={"single": 0.5})
    epochs = [first, *(made(seed, near=first, ranks={"img_mlp": 2})[0] for seed in (2, 3))]
    files = [tmp_path / f"e{number}.safetensors" for number in range(3)]
    for file, state in zip(files, epochs, strict=True):
        save_lora(file, state, targets, layout, "float32", {"ss_steps": file.stem[1:], "ss_output_name": file.stem})
    out = tmp_path / "out.safetensors"
    found = blend_files(files, [1, 2, 1], out, "lorakiln test", NOW)
    back, found_targets = load_lora(out)
    shares, losts, wholes = (0.25, 0.5, 0.25), [], []
    by_name = {target.name: target for target in found_targets}
    for target in targets:
        average = sum(share * full(state, target) for share, state in zip(shares, epochs, strict=True))
        wanted, lost = best_of_rank(average, target.rank)
        ours = by_name[target.name]
        assert ours.rank == target.rank and (layout == "diffusers" or ours.alpha == pytest.approx(target.alpha))
        torch.testing.assert_close(full(back, ours), wanted, rtol=1e-4, atol=1e-4)
        losts.append((lost * float(average.norm())) ** 2)
        wholes.append(float(average.norm()) ** 2)
    assert found.lost == pytest.approx((sum(losts) / sum(wholes)) ** 0.5, rel=1e-4) and 0 < found.lost < 0.2
    assert found.worst_lost == pytest.approx(
        max((a / b) ** 0.5 for a, b in zip(losts, wholes, strict=True)), rel=1e-3
    )
    assert load_file(out).keys() == load_file(files[0]).keys()


def test_averaging_the_matrices_by_themselves_is_something_else():
    """Why it is done this way: two files of the same update, in other bases, average to that update."""
    state, targets = made(1)
    turned = dict(state)
    for target in targets:
        turn = torch.linalg.qr(torch.randn(4, 4, generator=torch.Generator().manual_seed(5)))[0]
        turned[f"{target.name}.lora_down.weight"] = turn @ state[f"{target.name}.lora_down.weight"]
        turned[f"{target.name}.lora_up.weight"] = state[f"{target.name}.lora_up.weight"] @ turn.T
    found = blend([Part(state, targets, 0.5), Part(turned, targets, 0.5)])
    for target in targets:
        torch.testing.assert_close(full(found.state, target), full(state, target), rtol=1e-4, atol=1e-4)
    # Nothing but the rounding of the turned matrices is lost.
    assert found.lost < 1e-5


def test_ranks_and_scales_may_differ_and_the_largest_rank_is_taken():
    (one, small), (two, large) = made(1, rank=2, alpha=1.0), made(2, rank=6, alpha=9.0)
    found = blend([Part(one, small, 0.5), Part(two, large, 0.5)])
    assert [(target.rank, target.alpha) for target in found.targets] == [(6, 9.0)] * len(large)
    for a, b in zip(small, large, strict=True):
        wanted, _ = best_of_rank(0.5 * full(one, a) + 0.5 * full(two, b), 6)
        torch.testing.assert_close(full(found.state, b), wanted, rtol=1e-4, atol=1e-4)


def test_nothing_learned_blends_to_nothing_and_few_rows_to_what_they_are():
    down, up, lost, whole = refactored([(torch.zeros(4, 9).double(), torch.zeros(3, 4).double())] * 2, 4)
    assert not down.any() and not up.any() and lost == whole == 0
    pair = torch.randn(4, 9).double(), torch.randn(3, 4).double()
    down, up, lost, whole = refactored([pair] * 3, 4)
    assert down.shape == (4, 9) and up.shape == (3, 4) and lost < 1e-20 * whole
    torch.testing.assert_close(up @ down, 3 * pair[1] @ pair[0])


def test_a_file_says_what_it_was_blended_from(tmp_path):
    state, targets = made(1)
    said = {"ss_network_dim": "4", "ss_sd_model_name": "flux.safetensors", "modelspec.author": "me"}
    files = [tmp_path / f"cat-e{number}.safetensors" for number in (1, 2)]
    for number, file in enumerate(files, start=1):
        own = {"ss_steps": str(10 * number), "ss_epoch": str(number), "ss_output_name": file.stem}
        title = {"modelspec.title": file.stem, "modelspec.implementation_version": "lorakiln 0.0"}
        save_lora(file, state, targets, "kohya", "bfloat16", {**said, **own, **title, "lora_adapter_metadata": "{}"})
    out = tmp_path / "mix.safetensors"
    blend_files(files, [3, 1], out, "lorakiln 9", NOW)
    told = read_metadata(out)
    assert told["ss_epoch"] == "2" and told["ss_network_dim"] == "4" and told["modelspec.author"] == "me"
    assert told["ss_output_name"] == told["modelspec.title"] == "mix" and told["modelspec.date"].startswith(
        "2023-11-14"
    )
    parts = json.loads(told["ss_blended_from"])
    assert [(part["name"], part["weight"], part["epoch"]) for part in parts] == [
        ("cat-e1", 0.75, "1"),
        ("cat-e2", 0.25, "2"),
    ]
    assert parts[0]["sha256"] == read_metadata(files[0])["sshs_model_hash"] != told["sshs_model_hash"]
    assert "lora_adapter_metadata" not in told and float(told["ss_blend_lost"]) < 0.01
    assert all(tensor.dtype == torch.bfloat16 for name, tensor in load_file(out).items() if "alpha" not in name)


def test_what_cannot_be_blended_is_refused_and_nothing_is_written_or_replaced(tmp_path):
    state, targets = made(1)
    other, fewer = made(2, targets="default")
    files = [tmp_path / "a.safetensors", tmp_path / "b.safetensors"]
    save_lora(files[0], state, targets, "kohya", "float32", {})
    save_lora(files[1], other, fewer, "kohya", "float32", {})
    out = tmp_path / "out.safetensors"
    with pytest.raises(ModelFileError, match="number 2 adapts"):
        blend_files(files, [1, 1], out, "", NOW)
    for some, weights in (
        ([files[0]], [1]),
        (files, [1]),
        (files, [0, 0]),
        (files, [2, -1]),
        (files, [float("nan"), 1]),
    ):
        with pytest.raises(ConfigError):
            blend_files(some, weights, out, "", NOW)
    assert blend_files([files[0]] * 2, [1, 1], out, "", NOW, lambda done, total: done < 3) is None
    assert not out.exists()
    out.write_text("mine")
    with pytest.raises(ConfigError, match="stands already"):
        blend_files([files[0]] * 2, [1, 1], out, "", NOW)
    assert out.read_text() == "mine" and Path(out).stat().st_size == 4
