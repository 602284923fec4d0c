"""Hostile pictures cost themselves only: each of the corpus is taken, warned about or refused with its own reason,
and a decoder that hangs, eats, crashes, reaches out or lies is replaced.
"""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

import psutil
import pytest
from _pytest.mark import ParameterSet

from engine.config import BucketConfig, DatasetConfig, FolderConfig
from engine.dataset.buckets import Placement, place
from engine.dataset.check import check_dataset
from engine.dataset.decoder import Decoder
from engine.dataset.decoder_pool import DecoderPool
from engine.dataset.scan import collect
from engine.errors import DatasetError
from tests.engine.pictures import picture_file
from tests.fuzz.corpus_pictures import Expectation, write_pictures
from tests.fuzz.spoiled_child import ANSWERS, BOOT, DEEDS, RAW
from tests.reliability import figure
from tui.thumbnails import Thumbnails

MOST_MEMORY = 512 << 20
CONTROLS = re.compile("[\x00-\x1f\x7f-\x9f]")
REACHING = {"connect", "listen", "run", "fork", "system", "write", "remove"}
SURVIVED = REACHING | {"eat", "deep", "shout"}
"""What the child itself takes for a broken picture."""
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
    monkeypatch.setattr("engine.dataset.decoder._BOOT", BOOT)


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
    limit = 1.0 if name in ("hang", "spin") else 20.0
    with Decoder(time_limit_s=limit, memory_limit=300 << 20) as decoder:
        first = list(decoder.probe_many([good]))
        child = decoder._child
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
    with Decoder(time_limit_s=1.5 if name == "greedy" else 20.0) as decoder:
        before = decoder.probe(good)
        for ask in (decoder.probe, lambda path: decoder.pixels(path, SMALL, "white", False)):
            with pytest.raises(DatasetError, match="died on this picture") as caught:
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
