"""Hostile pictures cost themselves only: each of the corpus is taken, warned about or refused with its own reason,
and a decoder that hangs, eats, crashes, reaches out or lies is replaced.
"""

from __future__ import annotations

import contextlib
import random
import re
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import psutil
import pytest
from _pytest.mark import ParameterSet

from engine.config import BucketConfig, DatasetConfig, FolderConfig
from engine.config_file import save_config
from engine.dataset.buckets import Placement, place
from engine.dataset.check import check_dataset
from engine.dataset.decoder import Decoder
from engine.dataset.decoder_pool import DecoderPool
from engine.dataset.scan import collect
from engine.errors import DatasetError
from tests.engine.pictures import picture_file
from tests.fuzz.corpus_pictures import PICTURES, Expectation, write_pictures
from tests.fuzz.spoiled_child import ANSWERS, BOOT, DEEDS, RAW
from tests.pocket import pocket_config
from tests.reliability import figure
from tests.tui.watching import until
from tui.app import KilnApp
from tui.settings import Settings
from tui.thumbnails import Thumbnails
from tui.workplace import Workplace

MOST_MEMORY = 512 << 20
CONTROLS = re.compile("[\x00-\x1f\x7f-\x9f]")
REACHING = {"connect", "listen", "run", "fork", "system", "write", "remove"}
SURVIVED = REACHING | {"eat", "deep", "shout"}
"""What the child itself takes for a broken picture."""
PATIENCE_S = 100.0
SMALL = Placement(8, 8, 8, 8, 0, 0)
IN_THE_GATE = {"hang", "segfault", "eat", "connect", "run", "write", "list", "other", "width", "nested"}


def each(names: Iterable[str]) -> list[ParameterSet]:
    """The names as parameters; those beyond the gate's are marked."""
    return [pytest.param(name, marks=() if name in IN_THE_GATE else pytest.mark.crash) for name in names]


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> dict[Path, Expectation]:
    return write_pictures(tmp_path_factory.mktemp("corpus"))


@pytest.fixture
def spoiled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every decoder started from here on has a child that does what a picture's name says."""
    monkeypatch.setattr("engine.dataset.decoder_pipe._BOOT", BOOT)


@contextlib.contextmanager
def impatient(decoder: Decoder, when: bool) -> Iterator[None]:
    """Wait a second only ``when`` the child never answers: good pictures may take long on a busy machine."""
    decoder._time_limit_s = 1.0 if when else PATIENCE_S
    yield
    decoder._time_limit_s = PATIENCE_S


def became(decoder: Decoder, path: Path) -> Expectation:
    """What the decoder makes of a picture, in the corpus's words; probe, thumbnail and pixels must agree with it."""
    try:
        info = decoder.verify(path)
    except DatasetError as err:
        said = f"{err.title}: {err.detail}"
        assert err.hint and "died" not in err.title, said
        assert not CONTROLS.search(said + err.hint) and path.name in said
        with pytest.raises(DatasetError):
            decoder.thumbnail(path, 32)
        return f"refuse:{said}"
    assert (decoder.probe(path).width, decoder.probe(path).height) == (info.width, info.height)
    assert max(decoder.thumbnail(path, 32).shape[:2]) <= 32
    placement = place(info.width, info.height, 64, BucketConfig(min_side=32))
    assert decoder.pixels(path, placement, "white", False).shape == (placement.bucket_h, placement.bucket_w, 3)
    assert not CONTROLS.search("".join(text for _, text in info.warnings))
    return f"warn:{info.warnings[0][0]}" if info.warnings else "accept"


def peak_memory(decoder: Decoder) -> int:
    """Bytes that the decoder's child had in memory at most."""
    assert decoder._child is not None
    status = Path(f"/proc/{decoder._child._process.pid}/status").read_text()
    return int(re.search(r"VmHWM:\s+(\d+) kB", status)[1]) * 1024  # type: ignore[index]


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_every_picture_of_the_corpus_becomes_what_it_must(corpus: dict[Path, Expectation]) -> None:
    longest = 0.0
    with Decoder() as decoder:
        decoder.verify(next(iter(path for path, wanted in corpus.items() if wanted == "accept")))
        child = decoder._child
        for path, wanted in corpus.items():
            began = time.monotonic()
            found = became(decoder, path)
            longest = max(longest, time.monotonic() - began)
            if wanted.startswith("refuse:"):
                assert found.startswith("refuse:") and wanted[7:] in found, (path.name, found)
            else:
                assert found == wanted, path.name
        assert decoder._child is child, "a picture of the corpus cost the decoder its child"
        peak = peak_memory(decoder)
    assert peak < MOST_MEMORY
    assert len(corpus) >= 80
    kinds = [wanted.partition(":")[0] for wanted in corpus.values()]
    counts = f"{kinds.count('accept')} taken, {kinds.count('warn')} with a warning, {kinds.count('refuse')} refused"
    figure("pictures", "hostile files that became what they must", f"{len(corpus)} of {len(corpus)}: {counts}")
    figure("pictures", "most memory of the decoder", f"{peak / 2**20:.0f} MB")
    figure("pictures", "longest time for a file, four ways of decoding", f"{longest:.1f} s")


def test_a_dataset_of_them_is_scanned_and_checked_to_its_end(corpus: dict[Path, Expectation]) -> None:
    """Each is either trained on or among the errors, by name; nothing is lost, nothing said twice."""
    folder = next(iter(corpus)).parent
    config = DatasetConfig(
        folders=(FolderConfig(path=folder),), resolution=64, buckets=BucketConfig(min_side=32, max_side=128, step=16)
    )
    report = check_dataset(config)
    good = {Path(image["path"]) for image in report["images"]}
    refused = {Path(found["path"]) for found in report["problems"] if found["code"] == "picture"}
    gif = {path for path in corpus if path.suffix == ".gif"}
    assert good == {path for path, wanted in corpus.items() if not wanted.startswith("refuse:")}
    assert refused == set(corpus) - good - gif and gif == {
        Path(found["path"]) for found in report["problems"] if found["code"] == "unsupported"
    }
    assert not any(CONTROLS.search(found["message"] + found["path"]) for found in report["problems"])
    with Decoder() as decoder:
        scan = collect(config, decoder)
    assert {sample.path for sample in scan.samples} >= good


@pytest.mark.parametrize("name", each(DEEDS))
def test_a_child_that_does_something_terrible_costs_one_picture(spoiled: None, tmp_path: Path, name: str) -> None:
    """The picture is named, the next one is decoded, and nothing was started, sent or written."""
    good, bad = picture_file(tmp_path, "good.png"), picture_file(tmp_path, f"{name}.png")
    with Decoder(time_limit_s=PATIENCE_S, memory_limit=300 << 20) as decoder:
        first = list(decoder.probe_many([good]))
        child = decoder._child
        with impatient(decoder, name in ("hang", "spin")):
            (outcome,) = decoder.probe_many([bad])
        assert isinstance(outcome, DatasetError) and bad.name in outcome.detail, outcome
        assert not CONTROLS.search(outcome.detail)
        replaced = decoder._child is not child
        assert replaced == (name not in SURVIVED), outcome.detail
        assert list(decoder.probe_many([good])) == first
    if name in REACHING:
        assert "must not do this" in outcome.detail
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(
        ("good.png", "good.txt", bad.name, bad.with_suffix(".txt").name)
    )
    assert not Path("ran").exists() and not Path("written").exists()


@pytest.mark.parametrize("name", each([*ANSWERS, *RAW]))
def test_a_child_that_lies_is_not_believed(spoiled: None, tmp_path: Path, name: str) -> None:
    """Its answers are checked: wrong ones cost the picture and the child, no more."""
    good, bad = picture_file(tmp_path, "good.png", width=8, height=8), picture_file(tmp_path, f"{name}.png")
    with Decoder(time_limit_s=PATIENCE_S) as decoder:
        before = decoder.probe(good)
        asks: list[Callable[[Path], object]] = [decoder.probe]
        asks.append(lambda path: decoder.pixels(path, SMALL, "white", False))
        if name != "other":  # a thumbnail of one pixel is one that a narrow picture may have
            asks.append(lambda path: decoder.thumbnail(path, 8))
        for ask in asks:
            with (
                impatient(decoder, name == "greedy"),
                pytest.raises(DatasetError, match="died on this picture") as caught,
            ):
                ask(bad)
            assert not CONTROLS.search(caught.value.detail)
            assert decoder.probe(good) == before
        assert decoder.pixels(good, SMALL, "white", False).shape == (8, 8, 3)


@pytest.fixture
def mixed(spoiled: None, tmp_path: Path) -> Iterator[tuple[Path, list[str]]]:
    """A dataset in which every third picture kills the decoder."""
    deadly = ["segfault", "abort", "oomkill", "leave"]
    for number, name in enumerate(deadly):
        picture_file(tmp_path / "data", f"{name}.png")
        picture_file(tmp_path / "data", f"a{number}.png")
        picture_file(tmp_path / "data", f"z{number}.png")
    yield tmp_path / "data", deadly


def test_scan_check_and_thumbnails_go_on_after_deaths(mixed: tuple[Path, list[str]], tmp_path: Path) -> None:
    """In one go over all of them, each death is told once and takes nothing with it."""
    folder, deadly = mixed
    config = DatasetConfig(folders=(FolderConfig(path=folder),), resolution=64, buckets=BucketConfig(min_side=32))
    with Decoder() as decoder:
        scan = collect(config, decoder)
        thumbnails = Thumbnails(decoder, tmp_path / "thumbs")
        made = {path.name: thumbnails.load(path) for path in sorted(folder.glob("*.png"))}
        thumbnails.close()
    for errors in (scan.errors, [found for found in check_dataset(config)["problems"] if found["code"] == "picture"]):
        told = [found["path"] if isinstance(found, dict) else found.path for found in errors]
        assert sorted(Path(path).stem for path in told) == sorted(deadly)
    assert len(scan.samples) == 8
    assert {Path(name).stem for name, shown in made.items() if shown.pixels is None} == set(deadly)
    assert all("died" in shown.problem for shown in made.values() if shown.pixels is None)


def test_the_pool_of_a_caching_run_goes_on_after_deaths(mixed: tuple[Path, list[str]]) -> None:
    """No decoder is lost to the pool, however many children die."""
    folder, deadly = mixed
    with DecoderPool(workers=2) as pool:
        for _ in range(2):
            for path in sorted(folder.glob("*.png")):
                if path.stem in deadly:
                    with pytest.raises(DatasetError, match="died"):
                        pool.pixels(path, SMALL, "white", False)
                else:
                    placement = place(64, 48, 64, BucketConfig(min_side=32))
                    assert pool.pixels(path, placement, "white", False).size
        assert pool._idle.qsize() == 2
        children = [decoder._child._process.pid for decoder in pool._decoders if decoder._child is not None]
        assert children
    assert not any(psutil.pid_exists(pid) for pid in children)
    figure(
        "pictures", "ways in which a decoder's death cost its picture only", f"{len(DEEDS) + len(ANSWERS) + len(RAW)}"
    )


@pytest.mark.parametrize("count", [60, pytest.param(4000, marks=pytest.mark.crash)])
def test_mutations_of_the_corpus_cost_nothing_but_themselves(tmp_path: Path, count: int) -> None:
    """Bytes changed, runs repeated or cut out, two files joined: a picture or a reason, and the child lives."""
    draw = random.Random(count)
    names = sorted(name for name in PICTURES if name not in ("bomb1.png", "rowbomb.png", "iccbomb.png", "tall.png"))
    files = {name: PICTURES[name].data() for name in names}
    path, taken, died = tmp_path / "a.png", 0, 0
    with Decoder() as decoder:
        for _ in range(count):
            path.write_bytes(mutated(files[draw.choice(names)], files[draw.choice(names)], draw))
            for ask in (decoder.verify, lambda path: decoder.thumbnail(path, 16)):
                try:
                    ask(path)
                    taken += 1
                except DatasetError as err:
                    died += "died" in err.title
                    assert err.hint and not CONTROLS.search(f"{err.title}{err.detail}"), path.read_bytes()[:200]
        assert decoder.probe(picture_file(tmp_path, "good.png")).width == 64
    assert taken and not died
    figure("pictures", "mutated pictures, decoded twice, that cost the child", f"{died} of {count:,}")


@pytest.mark.parametrize("count", [60, pytest.param(4000, marks=pytest.mark.crash)])
def test_mutations_of_a_gif_cost_nothing_but_themselves(tmp_path: Path, count: int) -> None:
    """The one operation that opens one: a first frame or a reason, and the child lives."""
    draw = random.Random(count)
    gif, other = PICTURES["anim.gif"].data(), PICTURES["anim.webp"].data()
    path, taken, died = tmp_path / "a.gif", 0, 0
    with Decoder() as decoder:
        for _ in range(count):
            path.write_bytes(mutated(gif, draw.choice((gif, other)), draw))
            try:
                taken += decoder.first_frame(path).ndim == 3
            except DatasetError as err:
                died += "died" in err.title
                assert err.hint and not CONTROLS.search(f"{err.title}{err.detail}"), path.read_bytes()[:200]
        path.write_bytes(gif)
        assert decoder.first_frame(path).size
    assert taken and not died
    figure("pictures", "mutated GIFs, asked for a frame, that cost the child", f"{died} of {count:,}")


def mutated(data: bytes, other: bytes, draw: random.Random) -> bytes:
    """``data`` after one to four accidents; most of them early, where the headers are."""
    found = bytearray(data[:200_000] or b"\0")
    for _ in range(draw.randint(1, 4)):
        at = min(int(draw.expovariate(1 / 60)), len(found) - 1)
        length = draw.randint(1, 40)
        kind = draw.choice(("flip", "set", "zero", "cut", "repeat", "join", "end"))
        if kind == "flip":
            found[at] ^= 1 << draw.randint(0, 7)
        elif kind == "set":
            found[at] = draw.choice((0, 1, 0x7F, 0x80, 0xFF))
        elif kind == "zero":
            found[at : at + length] = bytes(min(length, len(found) - at))
        elif kind == "cut":
            del found[at : at + length]
        elif kind == "repeat":
            found[at:at] = found[at : at + length] * draw.randint(1, 20)
        elif kind == "join":
            found[at:] = other[at : at + 100_000]
        else:
            del found[draw.randint(0, len(found)) :]
        found = found or bytearray(b"\0")
    return bytes(found)


async def test_the_workbench_shows_them(spoiled: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Good, refused and deadly pictures on a small screen: each row says what is wrong, and the screen goes on."""
    monkeypatch.chdir(tmp_path)
    odd = (
        "half.jpg",
        "zero.png",
        "bomb.png",
        "float.tif",
        "html.jpg",
        "fading.png",
        "anim.webp",
        "grey16.png",
        "eps.png",
    )
    expected = write_pictures(tmp_path / "data", odd)
    deadly = {picture_file(tmp_path / "data", f"{name}.png") for name in ("segfault", "abort", "connect", "width")}
    folder = {"folders": [{"path": str(tmp_path / "data")}], "max_megapixels": 32.0}
    save_config(pocket_config(tmp_path, dataset=folder), tmp_path / "run.toml")
    place = Workplace(tmp_path, Settings())
    app = KilnApp(place)
    async with app.run_test(size=(80, 24), notifications=True) as pilot:
        await until(
            pilot, lambda: place.catalog.state == "ready" and len(place.catalog.rows) == len(odd) + len(deadly)
        )
        rows = {row.path: row for row in place.catalog.rows}
        assert {path for path, row in rows.items() if row.severity == "error"} == deadly | {
            path for path, wanted in expected.items() if wanted.startswith("refuse:") and "half" not in path.name
        }
        assert "the limit is 32" in rows[tmp_path / "data" / "bomb-png.png"].problem
        await pilot.press("g", "enter")
        for _ in rows:
            await pilot.press("alt+down")
            for strip in app.screen._compositor.render_strips():
                assert not CONTROLS.search(strip.text), ascii(strip.text)
        await pilot.press("escape", "escape")
    assert app.crash == "" and app.return_value is None
    assert all("died" in rows[path].problem for path in deadly if path.stem != "connect")
