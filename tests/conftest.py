"""What all tests share: the machine's manners before torch is loaded, golden data and tokenizer files.

Golden files and tokenizers lie outside the repository (they are large and not ours). A test that needs them skips
with a reason where they are absent, and fails there when CI is set: a gate that skips its proofs proves nothing.
"""

from __future__ import annotations

import gc
import os

# Before torch: threads that wait must not spin, or a busy neighbour makes every step several times slower.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("GOMP_SPINCOUNT", "0")
os.environ.setdefault("KMP_BLOCKTIME", "0")
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
# No test may depend on the network.
os.environ.setdefault("HF_HUB_OFFLINE", "1")

from collections.abc import Callable
from pathlib import Path

import hypothesis
import pytest

# No test asserts a time: neither does a property of one, on a machine that has other work.
hypothesis.settings.register_profile(
    "patient", hypothesis.settings(), deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("patient")

# Nothing that collecting tests makes is rubbish: it stays to the end.
gc.disable()


@pytest.hookimpl(trylast=True)
def pytest_collection_finish() -> None:
    """Take what is loaded by now (torch, every test) out of the collector's sight, and let it work again.

    Millions of objects, of which none ever goes, would be looked through each time a run gives memory back.
    """
    gc.collect()
    gc.freeze()
    gc.enable()


SHARED = Path(__file__).resolve().parents[2] / "shared"


def _absent(what: str) -> None:
    if os.environ.get("CI"):
        pytest.fail(f"{what}: absent, and CI is set")
    pytest.skip(f"{what}: absent")


def golden_folders() -> list[Path]:
    """Where golden data may lie: $LORAKILN_GOLDEN first, then ``../shared/golden`` beside the repository."""
    named = os.environ.get("LORAKILN_GOLDEN")
    return [*([Path(named)] if named else []), SHARED / "golden"]


@pytest.fixture
def golden() -> Callable[[str], list[Path]]:
    """Return ``golden(pattern) -> list[Path]``, never empty: absent files skip the test, or fail it under CI."""

    def find(pattern: str) -> list[Path]:
        for folder in golden_folders():
            found = sorted(folder.glob(pattern))
            if found:
                return found
        _absent(f"golden data {pattern} in {' and '.join(map(str, golden_folders()))}")
        return []

    return find


@pytest.fixture
def tokenizer_files() -> Path:
    """Folder with the published tokenizers: ``clip/`` and ``t5/``."""
    beside = Path(os.environ["LORAKILN_GOLDEN"]).parent if "LORAKILN_GOLDEN" in os.environ else SHARED
    folder = next((f for f in (beside / "tokenizers", SHARED / "tokenizers") if f.is_dir()), SHARED / "tokenizers")
    if not (folder / "clip" / "vocab.json").is_file() or not (folder / "t5" / "spiece.model").is_file():
        _absent(f"tokenizer files {folder}")
    return folder


@pytest.fixture(autouse=True)
def _own_folders(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep tests away from the user's caches and settings."""
    home = tmp_path_factory.getbasetemp()
    monkeypatch.setenv("XDG_CACHE_HOME", str(home / "xdg-cache"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(home / "xdg-config"))
    monkeypatch.setenv("XDG_STATE_HOME", str(home / "xdg-state"))
