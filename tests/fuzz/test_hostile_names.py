"""A folder of hostile names, links and things that are no files: listed, told, trained on, shown harmlessly.

The same folder goes through the scan, ``kiln dataset check``, the workbench on a small screen and a real run.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.config import DatasetConfig, FolderConfig
from engine.config_file import save_config
from engine.dataset.decoder import Decoder
from engine.dataset.names import name_problems
from engine.dataset.pairs import PICTURES, pairs_of
from engine.dataset.problems import Problem
from engine.dataset.scan import collect, scan_dataset
from engine.dataset.walk import Tree
from engine.errors import DatasetError
from engine.events import Log, RunFailed
from engine.run import Run
from engine.text import safe_text
from tests.fuzz.corpus_names import ALIKE, ODD, STEMS, HostileFolder, write_folder
from tests.pocket import finish, pocket_config, told
from tests.reliability import figure
from tests.tui.watching import text_of, until
from tui.__main__ import main
from tui.app import KilnApp
from tui.settings import Settings
from tui.workplace import Workplace

ORDERS = re.compile(
    "[\x00-\x09\x0b-\x1f\x7f-\x9f\u200b\u2028\u202a-\u202e\u2066-\u2069\ud800-\udfff\U000e0000-\U000e007f]"
)


@pytest.fixture
def hostile(tmp_path: Path) -> Iterator[HostileFolder]:
    folder = write_folder(tmp_path / "hostile" / "data")
    yield folder
    for held in folder.held:
        held.close()


def settings_of(folder: HostileFolder, **options: object) -> DatasetConfig:
    return DatasetConfig.model_validate(
        {
            "folders": [{"path": folder.root}],
            "captions": {"trigger_word": "zok"},
            "resolution": 64,
            "buckets": {"min_side": 32, "max_side": 128, "step": 16},
            **options,
        }
    )


def shown(path: bytes) -> str:
    return safe_text(os.fsdecode(path))


def codes_at(problems: list[Problem]) -> dict[str, set[str]]:
    codes: dict[str, set[str]] = {}
    for problem in problems:
        codes.setdefault(problem.path, set()).add(problem.code)
        for text in (problem.path, problem.message, problem.hint):
            assert not ORDERS.search(text) and "\n" not in text, ascii(text)
            text.encode()
    return codes


def test_everything_is_listed_or_told(hostile: HostileFolder) -> None:
    """Each picture keeps its identity, down to the bytes; what is none of the folder's is told, by its code."""
    with Decoder() as decoder:
        scan = collect(settings_of(hostile), decoder)
    assert {os.fsencode(sample.path) for sample in scan.samples} == set(hostile.listed)
    codes = codes_at(list(scan.problems))
    for path, code in hostile.told.items():
        assert codes.get(shown(path)) == {code}, path
    for path, code in hostile.listed.items():
        if code in ("", "same-file"):
            assert shown(path) not in codes, path
        elif code != "alike-names":
            assert code in codes[shown(path)], path
    alike = [problem.message for problem in scan.problems if problem.code == "alike-names"]
    assert len(alike) == len(ALIKE) // 2
    captions = {sample.path.name: sample.caption for sample in scan.samples}
    assert (
        captions.pop("lent.png") == captions.pop("piped.png") == ""
    )  # nothing read through a link, nothing waited for
    assert set(captions.values()) == {"a picture", "the same file"}
    assert all(sample.content_hash for sample in scan.samples)
    figure("names", "hostile names, links and things listed or told", f"{hostile.count()} of {hostile.count()}")


def test_the_command_line_shows_it_harmlessly(hostile: HostileFolder, capsys: pytest.CaptureFixture[str]) -> None:
    """Table and JSON; the JSON gives every path back exactly."""
    command = ["dataset", "check", str(hostile.root), "--resolution", "512"]
    assert main(command) == 1
    out, err = capsys.readouterr()
    assert not ORDERS.search(out + err)
    for path, code in hostile.told.items():
        # Long paths are folded, so the last part is looked for.
        assert code == "too-deep" or shown(os.path.basename(path)) in out, path
    assert main([*command, "--json"]) == 1
    out = capsys.readouterr().out
    assert out.isascii()
    report = json.loads(out)
    uncaptioned = {os.fsencode(hostile.root / name) for name in ("lent.png", "piped.png")}
    assert {os.fsencode(image["path"]) for image in report["images"]} == set(hostile.listed) - uncaptioned
    same = [found for found in report["problems"] if found["code"] == "same-file"]
    (one,) = same
    assert {os.path.basename(one["path"]), one["message"].split()[-1]} == {"hard.png", "hard2.png"}


async def test_the_workbench_opens_it(
    hostile: HostileFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every row on a small screen, its picture, its caption, a filter: no crash, no order to the terminal."""
    monkeypatch.chdir(tmp_path)
    config = pocket_config(tmp_path, dataset=settings_of(hostile).model_dump(mode="json", exclude_defaults=True))
    save_config(config, tmp_path / "run.toml")
    place = Workplace(tmp_path, Settings())
    app = KilnApp(place)

    def harmless() -> bool:
        for strip in app.screen._compositor.render_strips():
            assert not ORDERS.search(strip.text), ascii(strip.text)
        return True

    async with app.run_test(size=(80, 24), notifications=True) as pilot:
        await until(pilot, lambda: place.catalog.state == "ready" and harmless())
        rows = place.catalog.rows
        assert {os.fsencode(row.path) for row in rows} == set(hostile.listed)
        lent = next(row for row in rows if row.path.name == "lent.png")
        assert lent.caption is None and "no caption" in lent.problem  # as training has it: the link leads out
        for _ in rows:
            await pilot.press("j")
            harmless()
        await pilot.press("g", "slash", *"edit", "enter")
        await until(pilot, lambda: "photo [edit].png" in text_of(app) and harmless())
        await pilot.press("enter")
        for _ in range(3):
            await pilot.press("alt+down")
            harmless()
        await pilot.press("escape", "escape", "escape")
        await pilot.pause()
        harmless()
    assert app.crash == "" and app.return_value is None
    for path, code in hostile.listed.items():
        if os.path.basename(path)[:-4] in STEMS:
            assert Path(os.fsdecode(path[:-4] + b".txt")).read_bytes() == b"a picture", (path, code)


def test_a_run_refuses_it_by_name_and_trains_on_what_is_left(hostile: HostileFolder, tmp_path: Path) -> None:
    """Errors stop a run before it starts; warnings do not, and what is told is what is left out."""
    changes = {
        "dataset": settings_of(hostile).model_dump(mode="json", exclude_defaults=True),
        "training": {"epochs": 1, "batch_size": 8, "accumulation": 1},
    }
    refused = finish(Run(pocket_config(tmp_path, **changes)))
    (failure,) = told(refused, RunFailed)
    assert "twin.png" in failure.detail and not ORDERS.search(failure.detail)
    for path, code in hostile.told.items():
        if code in ("same-stem", "picture"):
            Path(os.fsdecode(path)).unlink()
    run = finish(Run(pocket_config(tmp_path, name="second", **changes)))
    assert run.state == "finished", told(run, RunFailed)
    logged = "\n".join(entry.text for entry in told(run, Log))
    assert not ORDERS.search(logged)
    for path, code in hostile.told.items():
        assert code in ("same-stem", "picture") or shown(path) in logged, path
    history = (run.folder.root / "captions.jsonl").read_text()
    trained = {os.fsencode(name) for name in json.loads(history.splitlines()[0])["captions"]}
    twin = os.fsencode(hostile.root / "twin.webp")
    assert trained == set(hostile.listed) | {twin}
    assert not ORDERS.search((run.folder.root / "events.jsonl").read_text())


NAMES = st.text(st.sampled_from("aAbé.\u0301 \x1b\n[\udcff1ß"), min_size=1, max_size=6).map(
    lambda stem: stem.strip(".") or "x"
)
ENDINGS = st.sampled_from([".png", ".jpg", ".PNG", ".txt", ".TXT", ".caption", ".gif", "", ".npz"])


@settings(max_examples=150, deadline=None)
@given(st.lists(st.tuples(NAMES, ENDINGS), max_size=12))
def test_pairing_loses_nothing(files: list[tuple[str, str]]) -> None:
    """Whatever a folder holds: a picture is paired or told, a caption is used once or told, and twice the same."""
    names = sorted({stem + ending for stem, ending in files})
    found: list[Problem] = []
    tree, folder = Tree({"/data": names}), FolderConfig(path=Path("/data"))
    pairs = list(pairs_of(tree, folder, (".txt", ".caption"), found))
    again: list[Problem] = []
    assert pairs == list(pairs_of(tree, folder, (".txt", ".caption"), again))
    assert found == again
    pictures = {name for name in names if os.path.splitext(name)[1].lower() in PICTURES}
    paired = [pair.path.name for pair in pairs]
    assert len(paired) == len(set(paired)) and set(paired) <= pictures
    stems = [os.path.splitext(name)[0] for name in pictures]
    for name in pictures - set(paired):
        assert stems.count(os.path.splitext(name)[0]) > 1
        assert any(problem.code == "same-stem" and safe_text(name) in problem.message for problem in found)
    used = [pair.caption for pair in pairs if pair.caption]
    assert len(used) == len(set(used))
    orphans = {problem.path for problem in found if problem.code == "orphan-caption"}
    assert not orphans & {safe_text(path) for path in used if names.count(path.name) == 1 and path.name.isascii()}
    codes_at(found)


@settings(max_examples=300, deadline=None)
@given(
    st.lists(
        st.text(st.characters(exclude_characters="/\0", exclude_categories=()), min_size=1, max_size=20), max_size=6
    )
)
def test_any_name_is_judged(names: list[str]) -> None:
    """No name breaks the judgement; an ordinary one is no problem."""
    legal = []
    for name in names:
        try:
            os.fsencode(name)
        except UnicodeEncodeError:
            continue  # no file system has it
        legal.append(name)
    for problem in name_problems("/data", legal):
        assert problem.severity == "warning" and problem.hint and not ORDERS.search(problem.path + problem.message)
    assert not list(name_problems("/data", ["a.png", "b 2.png", "日本.png", "naïve (1).JPG"]))
    assert len(ODD) == sum(any(name_problems("/d", [os.fsdecode(stem + b".png")])) for stem in ODD)


def test_the_refusal_of_a_hostile_folder_is_harmless(tmp_path: Path) -> None:
    """Also where the folder itself has a hostile name."""
    root = tmp_path / "\x1b]0;t\x07\udcff"
    root.mkdir()
    with Decoder() as decoder, pytest.raises(DatasetError) as caught:
        scan_dataset(DatasetConfig(folders=(FolderConfig(path=root),)), decoder)
    assert not ORDERS.search(str(caught.value))
