"""Recipes are sound, within their own bands, and a user's file that is not is told with its line and skipped."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from engine.config import RunConfig
from profiles.advice import Advice, advice, total_steps
from profiles.recipes import FOLDER, all_recipes, read_recipe, shipped
from profiles.starters import pocket_model


def config_of(name: str, pictures: int, **changes: Any) -> RunConfig:
    """A run as the recipe has it; ``changes`` by table."""
    recipe = shipped()[name]
    band = recipe.band(pictures)
    table: dict[str, Any] = {key: dict(value) for key, value in recipe.table.items()}
    table["dataset"]["folders"] = [{"path": Path("pictures"), "repeats": band.repeats}]
    table["training"] |= {"epochs": band.epochs}
    for key, values in changes.items():
        table[key] = table.get(key, {}) | values
    return RunConfig.model_validate({"name": "x", "model": pocket_model()} | table)


def told(found: tuple[Advice, ...]) -> set[tuple[str, str]]:
    return {(each.key, each.level) for each in found}


def test_the_four_that_were_promised() -> None:
    assert {"character", "style", "product", "concept"} == set(shipped())


@pytest.mark.parametrize("name", sorted(shipped()))
def test_recipes_follow_their_own_advice(name: str) -> None:
    """At the least, best and most number of pictures, and where one band meets the next."""
    recipe = shipped()[name]
    wanted = recipe.file.pictures
    ends = {side for band in recipe.file.bands for side in band.pictures}
    for pictures in sorted({wanted.least, wanted.best, wanted.most, *ends}):
        if wanted.least <= pictures <= wanted.most:
            assert not advice(config_of(name, pictures), recipe, pictures), pictures
    assert recipe.table["lora"]["alpha"] == recipe.table["lora"]["rank"]
    assert recipe.table["schedule"]["name"] == "constant" and recipe.table["schedule"]["warmup_steps"] > 0
    assert recipe.table["objective"]["guidance"] == 1.0
    assert recipe.file.hints.pictures and recipe.file.hints.captions


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.toml")), ids=lambda path: path.stem)
def test_numbers_that_guides_name_have_their_source(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    for key in ("rank", "learning_rate", "least", "most", "guidance", "name"):
        lines = [line for line in text.splitlines() if line.startswith(f"{key} = ")]
        assert any("#" in line for line in lines), key
    assert "# Sources: [1]" in text


def test_bands_leave_no_gap() -> None:
    for recipe in shipped().values():
        bands = recipe.file.bands
        assert bands[0].pictures[0] == 1 and bands[-1].pictures[1] >= recipe.file.pictures.most
        for before, after in pairwise(bands):
            assert after.pictures[0] == before.pictures[1] + 1
        assert recipe.band(10_000) is bands[-1]


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"optimizer": {"learning_rate": 3e-4}}, ("optimizer.learning_rate", "amber")),
        ({"optimizer": {"learning_rate": 1e-5}}, ("optimizer.learning_rate", "amber")),
        ({"optimizer": {"learning_rate": 8e-4}}, ("optimizer.learning_rate", "red")),
        ({"optimizer": {"name": "prodigy", "learning_rate": 1e-2}}, ("optimizer.learning_rate", "red")),
        ({"optimizer": {"name": "lion", "learning_rate": 1e-4}}, ("optimizer.learning_rate", "red")),
        ({"lora": {"alpha": 1}}, ("lora.alpha", "amber")),
        ({"lora": {"rank": 128, "alpha": 128}}, ("lora.rank", "amber")),
        ({"schedule": {"name": "cosine"}}, ("schedule.name", "amber")),
        ({"objective": {"guidance": 3.5}}, ("objective.guidance", "amber")),
        ({"training": {"epochs": 400}}, ("training.epochs", "amber")),
        ({"training": {"epochs": 2}}, ("training.epochs", "amber")),
        ({"training": {"epochs": 0, "steps": 100}}, ("training.epochs", "amber")),
    ],
)
def test_what_is_outside_the_bands_is_told(changes: dict[str, Any], expected: tuple[str, str]) -> None:
    found = advice(config_of("character", 20, **changes), shipped()["character"], 20)
    assert told(found) == {expected}


def test_too_few_and_too_many_pictures() -> None:
    character = shipped()["character"]
    assert ("dataset.folders", "red") in told(advice(config_of("character", 3), character, 3))
    assert ("dataset.folders", "amber") in told(advice(config_of("character", 7), character, 7))
    assert ("dataset.folders", "amber") in told(advice(config_of("character", 200), character, 200))


def test_steps_are_counted_as_the_issue_of_batches_has_it() -> None:
    assert total_steps(20, 5, 20, 1) == 2000
    assert total_steps(21, 1, 2, 4) == 12


def test_own_recipes_are_added_and_bad_ones_skipped(tmp_path: Path) -> None:
    """A good one wins over a shipped one of its name; of a bad one file, line and key are told."""
    good = (FOLDER / "style.toml").read_text(encoding="utf-8").replace('title = "style"', 'title = "my style"')
    (tmp_path / "style.toml").write_text(good)
    bad = good.replace("rank = 32 ", "rnak = 32 ").replace("least = 15 ", "least = 90 ")
    (tmp_path / "worse.toml").write_text(bad)
    (tmp_path / "torn.toml").write_text("title = [")
    (tmp_path / "notes.txt").write_text("no recipe")
    recipes, problems = all_recipes(tmp_path)
    assert recipes["style"].own and recipes["style"].file.title == "my style"
    assert set(recipes) == {"character", "style", "product", "concept"}
    texts = [str(problem) for problem in problems]
    assert len(texts) == 2
    line = bad[: bad.index("rnak")].count("\n") + 1
    worse = next(text for text in texts if "worse.toml" in text)
    assert f"line {line}: config.lora.rnak" in worse and '"rank"' in worse.replace("rank?", '"rank"')
    assert "least 90, best 50 and most 200" in worse
    assert any("torn.toml" in text and "line 1" in text for text in texts)


def test_a_missing_folder_is_no_problem(tmp_path: Path) -> None:
    recipes, problems = all_recipes(tmp_path / "none")
    assert recipes == dict(shipped()) and not problems


def test_names_of_files_are_made_safe(tmp_path: Path) -> None:
    path = tmp_path / "\x1b]0;x.toml"
    path.write_text((FOLDER / "style.toml").read_text(encoding="utf-8"))
    assert "\x1b" not in read_recipe(path).name
