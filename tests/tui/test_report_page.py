"""A whole report: nothing in it refers to anything outside, whatever a run's texts say, and what it is made of."""

from __future__ import annotations

import os
import re
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from made_run import PROMPTS, Shape, dataset_in, made_run
from outline import Outline
from PIL import Image

from engine import text as texts
from engine.errors import RunError
from engine.events import EventLog, NearCopy, RunFailed, RunStarted, SampleSaved, Scored, SteppedDown, replay
from engine.files import RunFolder
from tests.reliability import figure
from tui.compare_text import row_of, verdict_lines
from tui.judged import JUDGED_NAME, Judged
from tui.reporting.page import MARKER
from tui.reporting.writing import Wish, refuse_foreign, write_report
from tui.reporting.zoom import SCRIPT
from tui.run_shelf import read_comparison

HOSTILE = (
    "<script>alert(1)</script>", '"><img src=https://evil.example/x onerror=alert(1)>', "]]></svg></style></script>",
    "' onclick='alert(1)' style='background:url(//evil.example)", 'data:image/png;base64,AA"><script src=//evil>',
    "javascript:alert(1)", "a\u202egpj.exe", "\x1b]0;x\x07<!--",
)  # fmt: skip

ELEMENTS = {
    "html", "head", "meta", "title", "style", "body", "header", "main", "section", "footer", "nav", "div", "p", "h1",
    "h2", "h3", "ul", "li", "a", "dl", "dt", "dd", "small", "span", "table", "thead", "tbody", "tr", "th", "td",
    "caption", "button", "img", "figure", "figcaption", "svg", "g", "path", "line", "rect", "circle", "text", "pre",
    "code", "details", "summary", "dialog", "script",
}  # fmt: skip
ATTRIBUTES = {
    "lang", "charset", "http-equiv", "content", "name", "id", "class", "aria-labelledby", "aria-label", "aria-hidden",
    "aria-live", "href", "scope", "tabindex", "role", "type", "src", "alt", "width", "height", "loading", "decoding",
    "data-label", "data-key", "viewbox", "x", "y", "x1", "x2", "y1", "y2", "cx", "cy", "r", "d", "dy", "text-anchor",
    "colspan",
}  # fmt: skip


def closed(page: str) -> Outline:
    """The page's outline, once nothing in it leads out of it and only our script is in it."""
    read = Outline(page)
    assert {name for name, _ in read.elements} <= ELEMENTS
    for name, attributes in read.elements:
        assert set(attributes) <= ATTRIBUTES, (name, set(attributes) - ATTRIBUTES)
        if "src" in attributes:
            assert name == "img"
            assert re.fullmatch(r"data:image/webp;base64,[A-Za-z0-9+/=]+", attributes["src"] or "")
        if "href" in attributes:
            assert name == "a" and re.fullmatch(r"#[a-z]+(-\d+)?", attributes["href"] or "")
    assert [text for tag, text in read.texts if tag == "script"] == [SCRIPT]
    styles = [text for tag, text in read.texts if tag == "style"]
    assert len(styles) == 1 and "url(" not in styles[0] and "@import" not in styles[0]
    policy = next(one["content"] for one in read.all("meta") if one.get("http-equiv") == "Content-Security-Policy")
    assert policy is not None and policy.startswith("default-src 'none'; img-src data:;") and "http" not in policy
    assert not any("\x1b" in text or "\u202e" in text for _, text in read.texts)
    return read


def test_a_page_of_hostile_texts_refers_to_nothing_and_runs_nothing(tmp_path: Path) -> None:
    data = dataset_in(tmp_path / "data")
    for number, text in enumerate(HOSTILE[:6]):
        (data / f"own{number}.txt").write_text(f"{text}, {text}")
    (data / "own0.png").rename(data / "<img src=x onerror=alert(1)>.png")
    (data / "own0.txt").rename(data / "<img src=x onerror=alert(1)>.txt")
    judged = Judged(chosen=6).with_opinion(6, note="\n".join(HOSTILE), stars=3)
    captions = {"trigger_word": HOSTILE[0]}
    folder = made_run(
        tmp_path / "runs", '"><b onclick=x>', Shape(prompts=HOSTILE), judged,
        dataset={"folders": [{"path": data}], "resolution": 64, "captions": captions,
                 "buckets": {"min_side": 32, "max_side": 128, "step": 16}},
        saving={"title": HOSTILE[1], "comment": HOSTILE[2]},
    )  # fmt: skip
    log = EventLog(RunFolder(folder).events)
    log.append(SampleSaved(f"../../{HOSTILE[4]}", 4, 9, 0, HOSTILE[3], 7, HOSTILE[0]))
    log.append(SteppedDown("training", 4, HOSTILE[0], HOSTILE[1], HOSTILE[2], HOSTILE[3]))
    log.append(RunFailed(HOSTILE[0], HOSTILE[1], HOSTILE[2], ""))
    log.close()
    page = write_report([folder]).page.read_text()
    told = closed(page).text()
    for text in HOSTILE[:2]:
        assert text in told, "it is shown as it is written"
    again = made_run(tmp_path / "runs", "cat")
    both = write_report([folder, again], Wish(out=tmp_path / "both.html")).page.read_text()
    assert HOSTILE[1] in closed(both).text()


def test_what_a_page_is_made_of(tmp_path: Path) -> None:
    judged = Judged(chosen=6).with_opinion(6, stars=4, note="good eyes", wins=2, shown=3, obeys="partly")
    folder = made_run(tmp_path / "runs", "owl", Shape(strengths=(0.6,)), judged)
    written = write_report([folder])
    assert written.page == folder / "report.html" and written.sheet == folder / "report.png"
    assert (written.left_out, written.failed) == (0, 0) and written.size == written.page.stat().st_size
    read = closed(written.page.read_text())
    assert read.headings == [
        ("h1", "owl"), ("h2", "Pictures"), ("h3", "At strength 1"), *[("h3", f"Strengths at epoch {e}") for e in
        (3, 6, 9, 12)], ("h2", "Epochs"), ("h2", "Curves"), ("h3", "Loss on held-out and training pictures"),
        ("h3", "Held-out loss by noise level"), ("h3", "Drift"), ("h3", "Size of the update"),
        ("h3", "Loss while training"), ("h2", "How to use it"), ("h3", "ComfyUI"), ("h3", "Forge and A1111"),
        ("h3", "diffusers"), ("h2", "Dataset"), ("h2", "Settings"), ("h2", "Machine and time"), ("h2", "Faults"),
    ]  # fmt: skip
    told = read.text()
    for words in ("good eyes", "2 of 3", "partly", "★★★★", "base model", "chosen", "advised", "owl-e0006.safetensors",
                  "from the dataset", "<lora:owl-e0006:0.8> zorple", "the disk was slow: x.bin"):  # fmt: skip
        assert words in told, words
    images = read.all("img")
    assert all(one["alt"] for one in images[:-1]), "the last is the empty one of the dialog"
    assert len({one["src"] for one in images[:-1]}) > 10
    assert len(read.all("img")) == written.pictures + 1
    labels = [one["aria-labelledby"] for one in read.all("section")]
    assert labels == [f"{one['id']}-title" for one in read.all("section")]


def test_no_home_no_folder_and_no_secret_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    token = "hf_" + "QwErTyUiOpAsDfGhJkLzXcVbNm"
    folder = made_run(tmp_path / "runs", saving={"comment": f"made with {token}", "author": "joe"})
    log = EventLog(RunFolder(folder).events)
    log.append(RunFailed("Lost", f"writing {tmp_path}/runs/owl/x and /home/joe/y failed; key {token}", "Look.", ""))
    log.close()
    monkeypatch.setenv("HF_TOKEN", token)
    texts._environment_secrets.cache_clear()
    page = write_report([folder]).page.read_text()
    texts._environment_secrets.cache_clear()
    for leak in (token, str(tmp_path), "/home/", "/models/t5", "/elsewhere"):
        assert leak not in page, leak
    assert "writing owl/x and y failed" in page


def test_scores_and_near_copies_stand_below_their_pictures(tmp_path: Path) -> None:
    folder = made_run(tmp_path / "runs")
    events = RunFolder(folder).events
    sample = next(entry.event for entry in replay(events, SampleSaved))
    assert isinstance(sample, SampleSaved)
    log = EventLog(events)
    log.append(Scored(sample.path, "clip_image", 0.8125))
    log.append(NearCopy(sample.path, "/somewhere/own<1>.png", 0.07))
    log.close()
    told = closed(write_report([folder]).page.read_text()).text()
    assert "clip image 0.81, nearly a copy of own<1>.png" in told and "somewhere" not in told
    bare = write_report([folder], Wish(dataset=False, out=tmp_path / "bare.html")).page.read_text()
    assert "nearly a copy of a training picture" in bare and "own&lt;1&gt;" not in bare


def test_without_the_dataset_nothing_of_it_is_in_the_page(tmp_path: Path) -> None:
    folder = made_run(tmp_path / "runs")
    written = write_report([folder], Wish(dataset=False))
    told = closed(written.page.read_text()).text()
    assert "Nothing is told of it: it was left out." in told and "outdoors" not in told
    assert "from the dataset" not in told and written.pictures == 3 * 5


def spoil(folder: Path, how: str) -> None:
    """Take something of a run away."""
    place = RunFolder(folder)
    if how == "no events":
        place.events.unlink()
    elif how == "torn events":
        data = place.events.read_bytes()
        place.events.write_bytes(data[: len(data) * 2 // 3] + b'\n{"seq": 1e999, "type": "Measured"\n\xff\xfe')
    elif how == "no configuration":
        place.config.write_text("name = 3 [")
    elif how == "no pictures":
        for path in place.samples.iterdir():
            path.unlink()
    elif how == "no dataset":
        for path in (folder.parents[1] / "data").iterdir():
            path.unlink()
    elif how == "only begun":
        place.events.unlink()
        log = EventLog(place.events)
        log.append(RunStarted("owl", "/x", "flux1", "dev", 3, 12, 4))
        log.close()
    else:
        (folder / JUDGED_NAME).write_text("{")


@pytest.mark.parametrize(
    "how", ["no events", "torn events", "no configuration", "no pictures", "no dataset", "only begun", "bad opinions"]
)
def test_a_run_that_lacks_something_has_a_report_all_the_same(tmp_path: Path, how: str) -> None:
    folder = made_run(tmp_path / "runs", judged=Judged(chosen=3))
    spoil(folder, how)
    written = write_report([folder])
    told = closed(written.page.read_text()).text()
    expected = {
        "no events": "No sample pictures were drawn", "torn events": "epoch 6", "no configuration": "cannot be read",
        "no pictures": "15 pictures could not be read", "no dataset": "Nothing is told of it",
        "only begun": "has no LoRA file yet", "bad opinions": "none yet",
    }  # fmt: skip
    assert expected[how] in told
    other = made_run(tmp_path / "runs", "cat")
    closed(write_report([folder, other], Wish(out=tmp_path / "both.html")).page.read_text())


def test_nothing_is_measured_and_that_is_said(tmp_path: Path) -> None:
    folder = made_run(tmp_path / "runs", shape=Shape(measured=False))
    told = closed(write_report([folder]).page.read_text()).text()
    assert "Nothing was measured in this run" in told and "no range yet" in told and "Loss while training" in told


def test_several_runs_share_prompts_and_tell_only_what_differs(tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    first = made_run(runs, "owl", judged=Judged(chosen=6))
    second = made_run(runs, "cat", Shape(prompts=(PROMPTS[1], "another")), lora={"rank": 32})
    written = write_report([first, second])
    assert written.page == runs / "comparison.html" and written.sheet is None
    read = closed(written.page.read_text())
    told = read.text()
    assert "Comparison of owl, cat" in told and "lora.rank" in told and "lora.alpha" not in told
    heads = [one for one in read.all("th") if one.get("scope") == "rowgroup"]
    assert len(heads) == 5, "the same words with other seeds are other prompts"


def test_several_runs_are_ranked_as_on_the_terminal(tmp_path: Path) -> None:
    """One comparison: the same order, figures, differences and words, with paths told by their ends."""
    runs = tmp_path / "runs"
    worse = made_run(runs, "owl", Shape(epochs=4), cache_dir="/elsewhere/one", lora={"resume_from": "/elsewhere/a.x"})
    better = made_run(
        runs, "cat", Shape(bottom=6), cache_dir="/elsewhere/two", lora={"resume_from": "/elsewhere/b.x"}
    )
    found = read_comparison([worse, better])
    read = closed(write_report([worse, better]).page.read_text())
    told = read.text()
    for line in verdict_lines(found):
        assert line in told
    assert [run.name for run in found.runs] == ["cat", "owl"] and "Comparison of cat, owl" in told
    for run in found.runs:
        assert all(cell in told for cell in row_of(run))
    assert set(found.differing) == {"cache_dir", "lora.resume_from"}
    assert "lora.resume_from" in told and "a.x" in told and "b.x" in told
    assert "/elsewhere" not in told and "cache_dir" not in told, "the machine's folders are nobody's business"


def test_only_a_former_report_is_written_over(tmp_path: Path) -> None:
    folder = made_run(tmp_path / "runs", shape=Shape(epochs=3))
    for name in ("report.html", "report.png"):
        theirs = folder / name
        theirs.write_text("mine: lorakiln report")
        with pytest.raises(RunError, match="there already"):
            write_report([folder])
        assert theirs.read_text() == "mine: lorakiln report"
        theirs.unlink()
    write_report([folder])
    before = (folder / "report.html").read_bytes()
    assert MARKER in before[:4096]
    write_report([folder])
    (folder / "report.html").write_text("mine")
    write_report([folder], Wish(force=True))
    assert MARKER in (folder / "report.html").read_bytes()[:4096]


def test_a_pipe_or_a_link_to_nowhere_is_nobodys_former_report(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.html")
    (tmp_path / "link.html").symlink_to(tmp_path / "nowhere.html")
    for name in ("pipe.html", "link.html"):
        with pytest.raises(RunError):
            refuse_foreign(tmp_path / name, MARKER)
    refuse_foreign(tmp_path / "free.html", MARKER)


def test_a_report_that_is_stopped_leaves_nothing(tmp_path: Path) -> None:
    folder = made_run(tmp_path / "runs", shape=Shape(epochs=3))
    stop = threading.Event()
    stop.set()
    with pytest.raises(RunError, match="was not written"):
        write_report([folder], stop=stop)
    assert not (folder / "report.html").exists()


@pytest.mark.slow
def test_three_hundred_epochs_of_eight_prompts_are_all_in_a_page(tmp_path: Path) -> None:
    prompts = [f"prompt {number}" for number in range(8)]
    folder = made_run(tmp_path / "runs", shape=Shape(epochs=300, every=1, prompts=prompts, side=8))
    for number in range(16):
        pixels = np.random.default_rng(number).normal(128, 20, (256, 256, 3)).clip(0, 255).astype(np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{number}.png")
    for number, path in enumerate(list(RunFolder(folder).samples.iterdir())):
        path.unlink()
        os.link(tmp_path / f"{number % 16}.png", path)
    begun = time.monotonic()
    written = write_report([folder])
    figure("report", "300 epochs of 8 prompts: seconds, megabytes", f"{time.monotonic() - begun:.0f}, "
           f"{written.size / 1e6:.1f}")  # fmt: skip
    assert written.size <= 25e6 and (written.pictures, written.left_out) == (301 * 8 + 8, 0)
    with Image.open(folder / "report.png") as sheet:
        assert max(sheet.size) <= 8000


def test_a_page_stays_within_its_size(tmp_path: Path) -> None:
    folder = made_run(tmp_path / "runs", shape=Shape(epochs=60, every=1))
    for number, path in enumerate(RunFolder(folder).samples.iterdir()):
        pixels = np.random.default_rng(number).integers(0, 256, (200, 200, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(path)
    written = write_report([folder], Wish(max_mb=1.0))
    assert written.size <= 1e6 and written.left_out > 0
    told = closed(written.page.read_text()).text()
    assert f"{written.left_out} pictures were left out" in told and "left out: no room" in told
