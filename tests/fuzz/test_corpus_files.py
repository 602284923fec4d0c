"""The corpora of hostile weights and configurations: each file refused with the words that fit, and nothing else."""

from __future__ import annotations

import re
import resource
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from engine.config import RunConfig
from engine.config_file import load_config, parse_config
from engine.dataset.sidecar import SIDECAR_NAME, load_sidecar
from engine.errors import ConfigError, DatasetError, EngineError, ModelFileError
from engine.lora.formats import fit_state, load_lora
from engine.lora.targets import Target, select_targets
from engine.models.detect import detect
from engine.models.find import find_models
from profiles.recipes import read_recipe
from profiles.tiers import read_tier
from tests.fuzz.corpus_configs import broken, many_tables, refused
from tests.fuzz.corpus_weights import headers, lora, loras, sealed, write
from tests.fuzz.target import assert_harmless
from tests.fuzz.targets_texts import CONFIG
from tests.reliability import figure

LARGEST_GROWTH = 512 * 2**10
"""KiB of memory that no file of a corpus may cost."""


def peak() -> int:
    """The most memory that this process ever had, in KiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def refusal(read: Callable[[], object], kind: type[EngineError] | tuple[type[EngineError], ...], pattern: str) -> str:
    """What ``read`` raises, in words that fit and do no harm."""
    with pytest.raises(kind) as caught:
        read()
    error = caught.value
    assert_harmless(error.title, error.detail, error.hint)
    told = f"{error.title}: {error.detail}"
    assert re.search(pattern, told, re.DOTALL), told[:500]
    assert len(told) < 3000
    return told


def test_hostile_headers_are_refused_by_every_reader(tmp_path: Path) -> None:
    corpus = headers()  # made before: what they cost to make is not what they cost to read
    paths = {name: write(tmp_path, name, data) for name, (data, _) in corpus.items()}
    before = peak()
    for name, path in paths.items():
        for read in (detect, load_lora):
            told = refusal(lambda read=read, path=path: read(path), ModelFileError, corpus[name][1])  # type: ignore[misc]
            assert path.name in told
    found = find_models([tmp_path])
    assert [info.kind for info in found] == ["unknown"] * len(corpus)
    assert_harmless(*(info.note for info in found))
    assert peak() - before < LARGEST_GROWTH
    figure("hostile weights", "headers refused with the right words", f"{len(corpus)} of {len(corpus)}")


def test_no_part_of_a_file_passes_for_the_whole(tmp_path: Path) -> None:
    from safetensors.torch import save

    whole = save({"a": torch.ones(3000), "b": torch.ones(3000)})
    sizes = [*range(0, 200, 3), *range(200, len(whole), 4096), len(whole) - 1]
    for size in sizes:
        path = write(tmp_path, "cut", whole[:size])
        refusal(lambda path=path: detect(path), ModelFileError, "truncated|empty|too few|Python pickle")  # type: ignore[misc]
    figure("hostile weights", "truncated files refused", f"{len(sizes)} of {len(sizes)}")


@pytest.mark.parametrize("ending", [".ckpt", ".pt", ".pth", ".bin", ".pkl", ".PT"])
def test_an_ending_of_pickles_is_enough(ending: str, tmp_path: Path) -> None:
    path = tmp_path / f"m{ending}"
    path.write_bytes(sealed({"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}, bytes(8)))
    told = refusal(lambda: detect(path), ModelFileError, "says a Python pickle")
    assert path.name in told


def test_loras_that_cannot_be_trained_on_are_refused(tmp_path: Path) -> None:
    corpus = loras()
    for name, (data, pattern) in corpus.items():
        path = write(tmp_path, name, data)
        told = refusal(lambda path=path: load_lora(path), (ModelFileError,), pattern)  # type: ignore[misc]
        assert path.name in told
        detect(path)  # looking at it is no harm
    figure("hostile weights", "LoRA files refused with the right words", f"{len(corpus)} of {len(corpus)}")


def test_wide_and_empty_numbers_that_are_sound_are_read(tmp_path: Path) -> None:
    from safetensors.torch import save

    wide = {name: tensor.double() for name, tensor in lora().items()}
    state, targets = load_lora(write(tmp_path, "wide", save(wide)))
    assert all(tensor.dtype == torch.float32 for tensor in state.values()) and targets[0].alpha == 2.0
    state, targets = load_lora(write(tmp_path, "plain", save(lora(alpha=None))))
    assert targets[0].alpha == 2.0  # the rank


def test_a_lora_for_another_base_is_told_by_module(tmp_path: Path) -> None:
    from safetensors.torch import save

    state, targets = load_lora(write(tmp_path, "other", save(lora())))
    wanted = [Target("double_blocks.7.img_attn.proj", "img_attn", 8, 8, 2, 2.0)]
    refusal(
        lambda: fit_state(state, targets, wanted), ConfigError, "double_blocks.7.img_attn.proj is not in the file"
    )


ELSEWHERE = ("depth-arrays", "digits", "bom", "latin-1", "escape", "twice")
"""Of the broken files those that every other reader is given too: all read by the same functions."""

READERS: dict[str, Callable[[Path], object]] = {"config": load_config, "recipe": read_recipe, "tier": read_tier}


@pytest.mark.parametrize("kind", [*READERS, "settings", "theme", "notes"])
def test_what_is_no_toml_is_refused_by_every_reader(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tui.settings import load_settings
    from tui.themes import _read as read_theme

    path = tmp_path / (SIDECAR_NAME if kind == "notes" else "mine.toml")
    monkeypatch.setenv("LORAKILN_SETTINGS", str(path))
    own: dict[str, Callable[[Path], object]] = {
        "settings": lambda _: load_settings(), "theme": read_theme, "notes": lambda path: load_sidecar(path.parent),
    }  # fmt: skip
    read = (READERS | own)[kind]
    corpus = broken()
    for name, (data, pattern) in corpus.items():
        if kind != "config" and name not in ELSEWHERE:
            continue
        if kind == "notes" and name in ("large", "bom", "utf-16", "latin-1"):
            continue  # a dataset's notes may be larger, and are decoded by their own reader: below
        path.write_bytes(data)
        told = refusal(lambda: read(path), (ConfigError, DatasetError), pattern if kind != "notes" else "")
        assert path.name in told, name
    figure("hostile configs", f"{kind}: files that are no TOML refused", "all")


@pytest.mark.parametrize("data", [b"\xff\xfea\0", b"\xe9", b"# " + b"x" * 2**26], ids=["utf-16", "latin-1", "huge"])
def test_a_datasets_notes_that_are_no_text_are_refused(data: bytes, tmp_path: Path) -> None:
    (tmp_path / SIDECAR_NAME).write_bytes(data)
    assert SIDECAR_NAME in refusal(lambda: load_sidecar(tmp_path), DatasetError, "no UTF-8|larger than")


@pytest.mark.parametrize("name", refused())
def test_a_strangers_configuration_is_refused_with_key_and_line(name: str, tmp_path: Path) -> None:
    text, pattern = refused()[name]
    path = tmp_path / "run.toml"
    path.write_text(text, encoding="utf-8")
    told = refusal(lambda: load_config(path), ConfigError, pattern)
    assert "run.toml" in told and "secret-word" not in told
    assert re.search(r"line \d+|version 999", told)


def test_tens_of_thousands_of_tables_cost_no_more_than_a_message(tmp_path: Path) -> None:
    path = tmp_path / "run.toml"
    path.write_bytes(many_tables())
    before = peak()
    with pytest.raises(ConfigError) as caught:
        load_config(path)
    assert peak() - before < LARGEST_GROWTH
    assert_harmless(caught.value.title, caught.value.detail)
    assert len(caught.value.detail) < 50_000


@pytest.mark.parametrize("pattern", ["(a+)+$", "(.+)+!", "(.*a|b)*", ".*.*.*.*.*!", "((a{1,9}){1,9}){1,9}"])
@pytest.mark.timeout(60)
def test_a_pattern_that_could_take_for_ever_is_refused(pattern: str, tmp_path: Path) -> None:
    text = CONFIG.replace("exclude = [\"a.*b\",\n  'c']", f"exclude = ['{pattern}']")
    config = parse_config(text, tmp_path / "a.toml")
    modules = {f"double_blocks.{n}.img_attn.{'a' * 60}": ("img_attn", 8, 8) for n in range(19)}
    refusal(lambda: select_targets(modules, config.lora), ConfigError, "lora.exclude .*could take for ever")


@pytest.mark.parametrize("pattern", [r"double_blocks\.\d+\.img_.*", r"^(img|txt)_in", r"(\d{2}\.)*a?", "[a-z]+_attn"])
def test_ordinary_patterns_are_no_such(pattern: str) -> None:
    from engine.lora.targets import _may_take_forever

    assert not _may_take_forever(pattern)


@pytest.mark.parametrize("place", ["../../.ssh", "/etc/cron.d", "$(id)", "`id`", "-rf", "a/../../b", "..", "con"])
def test_a_strangers_output_folder_is_shown_as_it_is_and_never_expanded(place: str, tmp_path: Path) -> None:
    path = tmp_path / "deep" / "er" / "run.toml"
    path.parent.mkdir(parents=True)
    path.write_text(f'runs_dir = "{place}"\n' + CONFIG)
    config: RunConfig = load_config(path)
    assert config.runs_dir.is_absolute() and ".." not in config.runs_dir.parts
    assert config.runs_dir == Path(place) or config.runs_dir.is_relative_to(tmp_path)
