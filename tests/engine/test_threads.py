"""The processor threads that a run asks for: its own matter, and of no trace in the next run."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from pocket import pocket_config

from engine.config_file import load_config, save_config
from engine.errors import ConfigError
from engine.training.device import ALL_THREADS, compute_for
from engine.training.prepare import settings_digest
from profiles.presets import preset
from profiles.starters import demo_config


def threads_of(config_path: Path) -> int:
    """What torch computes with in a thread that began this run, as the engine's does."""
    config = load_config(config_path)
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(lambda: (compute_for(config), torch.get_num_threads())[1]).result()


def test_a_run_computes_with_the_threads_it_asks_for(tmp_path: Path) -> None:
    for threads, given in ((3, 3), (1, 1), (0, ALL_THREADS)):
        save_config(pocket_config(tmp_path, training={"device": "cpu", "threads": threads}), tmp_path / "run.toml")
        assert threads_of(tmp_path / "run.toml") == given


def test_threads_change_nothing_that_is_learned(tmp_path: Path) -> None:
    digests = {settings_digest(pocket_config(tmp_path, training={"threads": threads}), 1) for threads in (0, 1, 2)}
    assert len(digests) == 1


def test_the_pocket_model_leaves_a_core_to_the_screen(tmp_path: Path) -> None:
    assert demo_config(tmp_path).training.threads == 1
    assert preset("pocket").table["training"]["threads"] == 1


def test_a_number_below_zero_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "run.toml"
    save_config(pocket_config(tmp_path), path)
    path.write_text(path.read_text().replace("threads = 0", "threads = -1"))
    with pytest.raises(ConfigError) as refused:
        load_config(path)
    assert "threads" in refused.value.detail
