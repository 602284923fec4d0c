"""The shipped tiers are what the solver chooses, valid settings of a run, and a user's own are read beside them."""

from __future__ import annotations

from pathlib import Path

import pytest

from profiles.tiers import FOLDER, SIZES_GB, all_tiers, read_tier, solved, tier_text


@pytest.mark.parametrize("vram_gb", SIZES_GB)
def test_tiers_are_what_the_solver_chooses(vram_gb: int) -> None:
    """After a change of forecast or solver `make tiers` writes them anew."""
    assert (FOLDER / f"{vram_gb}gb.toml").read_text(encoding="utf-8") == tier_text(vram_gb), "run `make tiers`"


def test_there_is_one_for_every_size_and_each_fits() -> None:
    tiers, problems = all_tiers(Path("/nonexistent"))
    assert not problems and len(tiers) == len(SIZES_GB)
    for tier in tiers.values():
        forecast = tier.file.forecast
        assert forecast is not None and forecast.peak_vram_gb < tier.file.machine.vram_gb
        assert not tier.own and tier.fixed["memory.precision"]
    steps = [tier.file.forecast.step_s for tier in tiers.values() if tier.file.forecast]
    assert steps[0] > 5 * steps[-1]
    smallest = tiers["8gb"].file.forecast
    assert smallest is not None and smallest.verdict == "fits, slowly"


def test_a_tiers_machine_is_the_one_it_was_solved_for() -> None:
    machine, fit = solved(12)
    tier = read_tier(FOLDER / "12gb.toml")
    assert tier.machine().card == machine.card and tier.machine().free_vram_gb == machine.free_vram_gb
    assert dict(tier.fixed) == fit.changes()


def test_own_tiers_are_added_and_bad_ones_skipped(tmp_path: Path) -> None:
    good = (FOLDER / "12gb.toml").read_text(encoding="utf-8")
    (tmp_path / "mine.toml").write_text(good.replace('title = "12 GB"', 'title = "my 3080 Ti"'))
    bad = good.replace("blocks_to_swap = ", "blocks_to_swpa = ")
    (tmp_path / "bad.toml").write_text(bad)
    tiers, problems = all_tiers(tmp_path)
    assert tiers["mine"].own and tiers["mine"].file.title == "my 3080 Ti" and "bad" not in tiers
    (problem,) = problems
    line = bad[: bad.index("blocks_to_swpa")].count("\n") + 1
    assert f"line {line}: config.memory.blocks_to_swpa" in str(problem) and "bad.toml" in str(problem)
