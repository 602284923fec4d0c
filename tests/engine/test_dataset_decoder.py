"""The decoder: what pictures become, what is refused and why, and what a dying child costs."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import psutil
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pictures import ACCEPTED, OSC_52, REFUSED, P, encoded, gradient, picture_file, png, tiff, turned
from PIL import Image, features

from engine.config import BucketConfig
from engine.dataset.buckets import Placement, place
from engine.dataset.decoder import Decoder
from engine.errors import DatasetError

WHOLE = Placement(64, 48, 64, 48, 0, 0)


@pytest.fixture(scope="module")
def decoder() -> Iterator[Decoder]:
    with Decoder() as shared:
        yield shared


def pixels(decoder: Decoder, path: Path, placement: Placement = WHOLE, flip: bool = False) -> np.ndarray:
    return decoder.pixels(path, placement, "white", flip).astype(int)


def written(folder: Path, name: str, data: bytes) -> Path:
    (folder / name).write_bytes(data)
    return folder / name


def child_of(decoder: Decoder) -> psutil.Process:
    assert decoder._child is not None
    return psutil.Process(decoder._child._process.pid)


@pytest.mark.parametrize("name", REFUSED)
def test_refused_with_a_reason(decoder: Decoder, tmp_path: Path, name: str) -> None:
    """Each of these costs itself only: an error that names the file, in time, and no escape byte."""
    path = written(tmp_path, name, REFUSED[name]())
    with pytest.raises(DatasetError, match=name) as caught:
        decoder.verify(path)
    assert "died" not in caught.value.title and caught.value.hint
    assert "\x1b" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("zero.png", "no bytes"), ("half.jpg", "truncated"), ("bomb.png", "3600 megapixels; the limit is 64"),
        ("bomb1.png", "169 megapixels"), ("html.jpg", "a web page"), ("gif.png", "a GIF"), ("heic.jpg", "HEIC"),
        ("headless.png", "starts like a PNG file"),
        ("float.tif", "mode F"), ("int32.tif", "mode I"), ("lab.tif", "mode LAB"), ("eps.png", "PostScript"),
    ],
)  # fmt: skip
def test_reasons_say_what_was_found(decoder: Decoder, tmp_path: Path, name: str, words: str) -> None:
    """Found against expected, in words a user knows."""
    with pytest.raises(DatasetError, match=words):
        decoder.verify(written(tmp_path, name, REFUSED[name]()))


@pytest.mark.parametrize("name", ACCEPTED)
def test_accepted_oddities(decoder: Decoder, tmp_path: Path, name: str) -> None:
    """Probe, decode and placement agree on the size; the pixels have the bucket's shape."""
    path = written(tmp_path, name, ACCEPTED[name]())
    info = decoder.probe(path)
    assert (info.width, info.height) == (decoder.verify(path).width, decoder.verify(path).height)
    placement = place(info.width, info.height, 64, BucketConfig(min_side=32))
    assert decoder.pixels(path, placement, "white", False).shape == (placement.bucket_h, placement.bucket_w, 3)


def test_pixels_are_those_of_the_file(decoder: Decoder, tmp_path: Path) -> None:
    """At its own size a PNG comes back bit for bit, whatever the container."""
    expected = np.asarray(gradient()).astype(int)
    for name, data in (("a.png", P), ("b.webp", ACCEPTED["lossless.webp"]()), ("c.bmp", ACCEPTED["picture.bmp"]())):
        assert (pixels(decoder, written(tmp_path, name, data)) == expected).all(), name


def test_16_bit_grey_is_scaled_not_clipped(decoder: Decoder, tmp_path: Path) -> None:
    """65535 becomes 255 and 257 becomes 1: Pillow's own conversion would clip nearly all of it to white."""
    grey = np.linspace(0, 65535, 64 * 48).astype(np.uint16).reshape(48, 64)
    expected = np.repeat(np.floor(grey / 257 + 0.5).astype(int)[..., None], 3, axis=-1)
    for name in ("grey16.png", "grey16.tif"):
        assert (pixels(decoder, written(tmp_path, name, ACCEPTED[name]())) == expected).all()


def test_16_bit_colour(decoder: Decoder, tmp_path: Path) -> None:
    """Pillow takes the high byte of each sample."""
    found = pixels(decoder, written(tmp_path, "a.png", ACCEPTED["rgb16.png"]()), Placement(8, 8, 8, 8, 0, 0))
    assert (found == [255, 128, 0]).all()


@pytest.mark.parametrize("order", ["<", ">"])
def test_16_bit_tiffs(decoder: Decoder, tmp_path: Path, order: str) -> None:
    """Either byte order; colour; and grey that counts from white, which Pillow alone would give as a negative."""
    eight = Placement(8, 8, 8, 8, 0, 0)
    colour = np.full((8, 8, 3), [65535, 32896, 257], dtype=f"{order}u2")
    assert (pixels(decoder, written(tmp_path, "a.tif", tiff(colour, 2)), eight) == [255, 128, 1]).all()
    grey = np.full((8, 8, 1), 257, dtype=f"{order}u2")
    # Pillow does not know the last kind in big-endian order: refused, not inverted.
    for photometric, value in ((1, 1), (0, 254))[: 2 if order == "<" else 1]:
        assert (pixels(decoder, written(tmp_path, "b.tif", tiff(grey, photometric)), eight) == value).all()
    narrow = np.full((8, 8, 1), 1, dtype="u1")
    assert (pixels(decoder, written(tmp_path, "c.tif", tiff(narrow, 0)), eight) == 254).all()


def test_samples_without_an_agreed_white(decoder: Decoder, tmp_path: Path) -> None:
    """Signed, 32-bit and floating-point TIFFs are refused."""
    for kind, name in ((1, "u4"), (2, "i2"), (3, "f4")):
        for channels in (1, 3):
            samples = np.ones((8, 8, channels), dtype=name)
            with pytest.raises(DatasetError):
                decoder.probe(written(tmp_path, "a.tif", tiff(samples, 1 if channels == 1 else 2, kind)))


def test_cmyk_looks_like_its_original(decoder: Decoder, tmp_path: Path) -> None:
    """Converted, not inverted."""
    expected = np.asarray(gradient()).astype(int)
    for name in ("cmyk.jpg", "cmyk.tif"):
        assert abs(pixels(decoder, written(tmp_path, name, ACCEPTED[name]())) - expected).mean() < 4


@pytest.mark.parametrize("orientation", range(10))
@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "TIFF"])
def test_exif_turns(decoder: Decoder, tmp_path: Path, kind: str, orientation: int) -> None:
    """Sizes are those after the turn, in a probe and in the pixels; values that mean nothing turn nothing."""
    turn = {
        2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180, 4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE, 6: Image.Transpose.ROTATE_270, 7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_90,
    }.get(orientation)  # fmt: skip
    options = {"quality": 100} if kind in ("JPEG", "WEBP") else {}
    path = written(tmp_path, "a.x", encoded(gradient(), kind, exif=turned(orientation), **options))
    expected = gradient() if turn is None else gradient().transpose(turn)
    assert decoder.probe(path).width == decoder.verify(path).width == expected.width
    found = pixels(decoder, path, Placement(*expected.size, *expected.size, 0, 0))
    assert abs(found - np.asarray(expected).astype(int)).mean() < 3


def test_damaged_exif_is_a_warning(decoder: Decoder, tmp_path: Path) -> None:
    """The picture is used as it stands, and the user told, where the data cannot be read."""
    for name in ("exif_garbage.jpg", "exif_huge.jpg"):
        info = decoder.probe(written(tmp_path, name, ACCEPTED[name]()))
        assert (info.width, info.height) == (64, 48)
        assert {code for code, _ in info.warnings} <= {"exif"}


@pytest.mark.parametrize("background", ["white", "black", "grey"])
def test_transparency_lies_on_the_background(decoder: Decoder, tmp_path: Path, background: str) -> None:
    """Hidden colours never show, in any of the ways a file can be transparent."""
    value = {"white": 255, "black": 0, "grey": 128}[background]
    clear = Image.new("RGBA", (64, 48), (255, 0, 0, 0))
    palette = gradient().quantize(16)
    files = {
        "alpha.png": encoded(clear, "PNG"),
        "alpha.webp": encoded(clear, "WEBP", lossless=True, exact=True),
        "alpha.tif": encoded(clear, "TIFF"),
        "la.png": encoded(Image.new("LA", (64, 48), (77, 0)), "PNG"),
        "palette.png": encoded(palette, "PNG", transparency=bytes(16)),
        "key.png": encoded(Image.new("RGB", (64, 48), (1, 2, 3)), "PNG", transparency=(1, 2, 3)),
    }
    for name, data in files.items():
        path = written(tmp_path, name, data)
        assert (decoder.pixels(path, WHOLE, background, False) == value).all(), name
        assert "transparent" in dict(decoder.verify(path, background).warnings), name


def test_little_transparency_is_no_warning(decoder: Decoder, tmp_path: Path) -> None:
    """Soft corners are below one per cent; half transparency mixes."""
    soft = gradient().convert("RGBA")
    soft.putpixel((0, 0), (0, 0, 0, 0))
    assert decoder.verify(written(tmp_path, "a.png", encoded(soft, "PNG"))).warnings == ()
    half = Image.new("RGBA", (64, 48), (0, 0, 0, 128))
    assert (pixels(decoder, written(tmp_path, "b.png", encoded(half, "PNG"))) == 127).all()


@pytest.mark.parametrize(
    ("kind", "animated"), [("PNG", True), ("WEBP", True), ("TIFF", True), ("WEBP", False), ("TIFF", False)]
)
def test_several_frames_are_a_warning(decoder: Decoder, tmp_path: Path, kind: str, animated: bool) -> None:
    """The first frame is used."""
    more = {"save_all": True, "append_images": [Image.new("RGB", (64, 48), "blue")]} if animated else {}
    options = {"lossless": True} if kind == "WEBP" else {}
    path = written(tmp_path, "a.x", encoded(gradient(), kind, **options, **more))
    assert ("animated" in dict(decoder.probe(path).warnings)) == animated
    assert (pixels(decoder, path) == np.asarray(gradient())).all()


@pytest.mark.skipif(not features.check("avif"), reason="this Pillow has no AVIF")
def test_avif(decoder: Decoder, tmp_path: Path) -> None:
    """Read where Pillow can."""
    path = written(tmp_path, "a.avif", encoded(gradient(), "AVIF", quality=95))
    assert decoder.probe(path).format == "AVIF"
    assert abs(pixels(decoder, path) - np.asarray(gradient()).astype(int)).mean() < 5


def test_scaling_crops_the_right_part_and_flips(decoder: Decoder, tmp_path: Path) -> None:
    """The same as scaling the whole and cropping afterwards; flipping mirrors the crop."""
    path = picture_file(tmp_path, width=640, height=480)
    placement = place(640, 480, 128, BucketConfig(enabled=False))
    whole = gradient(640, 480).resize((placement.resized_w, placement.resized_h), Image.Resampling.LANCZOS)
    left, top = placement.left, placement.top
    expected = np.asarray(whole.crop((left, top, left + 128, top + 128))).astype(int)
    found = pixels(decoder, path, placement)
    assert abs(found - expected).max() <= 1
    assert (pixels(decoder, path, placement, flip=True) == found[:, ::-1]).all()
    assert (pixels(decoder, path, placement) == found).all()


def test_a_picture_that_changed_since_the_scan_is_refused(decoder: Decoder, tmp_path: Path) -> None:
    """Another shape would be squeezed into the bucket."""
    path = picture_file(tmp_path, width=300, height=100)
    with pytest.raises(DatasetError, match="changed since"):
        decoder.pixels(path, place(100, 300, 64, BucketConfig()), "white", False)


def test_thumbnails_fit(decoder: Decoder, tmp_path: Path) -> None:
    """Whole, in proportion, turned upright."""
    path = written(tmp_path, "a.jpg", encoded(gradient(640, 480), "JPEG", exif=turned(6)))
    assert decoder.thumbnail(path, 64).shape == (64, 48, 3)


def test_not_regular_files_do_not_hang(decoder: Decoder, tmp_path: Path) -> None:
    """A pipe, a folder, a missing file and a device."""
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "folder.png").mkdir()
    for path in (tmp_path / "pipe.png", tmp_path / "folder.png", tmp_path / "gone.png", Path("/dev/zero")):
        with pytest.raises(DatasetError, match=path.name):
            decoder.probe(path)


def test_names_that_are_not_text(decoder: Decoder, tmp_path: Path) -> None:
    """Bytes that are no UTF-8 and control characters are opened as they are and told harmlessly."""
    for raw in (b"\xff\xfe.png", f"{OSC_52}\n.png".replace("/", "_").encode()):
        path = Path(os.fsdecode(os.fsencode(tmp_path) + b"/" + raw))
        path.write_bytes(P)
        assert decoder.probe(path).width == 64
        path.write_bytes(b"")
        with pytest.raises(DatasetError) as caught:
            decoder.probe(path)
        assert str(caught.value).isprintable() or "\x1b" not in str(caught.value)
        str(caught.value).encode()


def test_many_headers_keep_their_order(decoder: Decoder, tmp_path: Path) -> None:
    """Errors come as values in their place."""
    good = picture_file(tmp_path)
    bad = written(tmp_path, "bad.png", b"")
    outcomes = list(decoder.probe_many([good, bad] * 100))
    assert len(outcomes) == 200
    assert all(isinstance(outcome, DatasetError) == bool(index % 2) for index, outcome in enumerate(outcomes))


def test_a_dead_child_costs_one_picture(tmp_path: Path) -> None:
    """Killed in the middle of a batch, it takes the picture it was at; a new one does the rest."""
    paths = [picture_file(tmp_path, f"{index}.png") for index in range(3)]
    with Decoder() as decoder:
        decoder.probe(paths[0])
        child = child_of(decoder)
        child.send_signal(signal.SIGSTOP)
        killer = threading.Timer(0.2, child.kill)
        killer.start()
        outcomes = list(decoder.probe_many(paths))
        killer.join()
        assert [isinstance(outcome, DatasetError) for outcome in outcomes] == [True, False, False]
        assert "SIGKILL" in str(outcomes[0])


def test_a_child_that_died_idle_costs_nothing(tmp_path: Path) -> None:
    """It is replaced before the next picture."""
    path = picture_file(tmp_path)
    with Decoder() as decoder:
        decoder.probe(path)
        child_of(decoder).kill()
        child_of(decoder).wait(5)
        assert decoder.probe(path).width == 64


def test_a_picture_that_takes_too_long(tmp_path: Path) -> None:
    """The child is killed, the picture named."""
    path = picture_file(tmp_path)
    with Decoder(time_limit_s=1.5) as decoder:  # a loaded machine may take a while over the good one
        decoder.probe(path)
        child_of(decoder).send_signal(signal.SIGSTOP)
        with pytest.raises(DatasetError, match="time limit"):
            decoder.probe(path)
        assert decoder.probe(path).width == 64


@pytest.mark.skipif(sys.platform != "linux", reason="address space is limited on Linux only")
def test_memory_is_limited(tmp_path: Path) -> None:
    """A picture that fits max_megapixels but not the limit is refused, and the next one is read."""
    path = written(tmp_path, "a.png", png(20000, 20000, 8, 2, b""))
    with Decoder(max_megapixels=1000, memory_limit=300 << 20) as decoder:
        with pytest.raises(DatasetError, match="more memory than"):
            decoder.pixels(path, place(20000, 20000, 64, BucketConfig()), "white", False)
        assert decoder.probe(picture_file(tmp_path, "b.png")).width == 64


def test_two_pictures_of_a_phone(decoder: Decoder, tmp_path: Path) -> None:
    """A JPEG with a second picture behind it (depth, preview) is an ordinary picture."""
    path = written(tmp_path, "a.jpg", encoded(gradient(), "MPO", save_all=True, append_images=[gradient(8, 8)]))
    info = decoder.verify(path)
    assert (info.width, info.warnings) == (64, ())
    assert abs(pixels(decoder, path) - np.asarray(gradient()).astype(int)).mean() < 5


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_mutilated_pictures_never_kill_the_child(decoder: Decoder, data: st.DataObject) -> None:
    """Whatever bytes are changed or lost, the answer is a picture or a reason."""
    name = data.draw(st.sampled_from(sorted(ACCEPTED)))
    original = ACCEPTED[name]()
    places = st.integers(0, min(len(original), 400) - 1)
    damaged = bytearray(original)
    for at, value in data.draw(st.lists(st.tuples(places, st.integers(0, 255)), max_size=8)):
        damaged[at] = value
    cut = data.draw(st.integers(0, len(original)))
    with tempfile.TemporaryDirectory() as folder:
        path = written(Path(folder), "a.png", bytes(damaged[:cut] if cut % 2 else damaged))
        try:
            assert decoder.thumbnail(path, 32).size
        except DatasetError as err:
            assert "died" not in err.title and err.hint


def test_threads_share_one_child(decoder: Decoder, tmp_path: Path) -> None:
    """Answers never get mixed up."""
    paths = [picture_file(tmp_path, f"{side}.png", width=side, height=side) for side in range(20, 60)]
    wrong: list[Path] = []

    def ask(path: Path, side: int) -> None:
        if decoder.probe(path).width != side or decoder.thumbnail(path, 999).shape != (side, side, 3):
            wrong.append(path)

    threads = [threading.Thread(target=ask, args=(path, int(path.stem))) for path in paths]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_closing_leaves_nothing_behind(tmp_path: Path) -> None:
    """No process, no zombie; using it afterwards is a mistake that shows."""
    decoder = Decoder()
    decoder.probe(picture_file(tmp_path))
    child = child_of(decoder)
    decoder.close()
    decoder.close()
    assert not child.is_running()
    with pytest.raises(RuntimeError, match="closed"):
        decoder.probe(tmp_path / "a.png")


def test_the_child_leaves_with_its_parent(tmp_path: Path) -> None:
    """A killed parent takes the child with it."""
    code = (
        "import sys, time; from pathlib import Path; from engine.dataset.decoder import Decoder; d = Decoder();"
        "d.probe(Path(sys.argv[1])); print(d._child._process.pid, flush=True); time.sleep(60)"
    )
    command = [sys.executable, "-c", code, str(picture_file(tmp_path))]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[2]) as parent:
        assert parent.stdout is not None
        child = psutil.Process(int(parent.stdout.readline()))
        parent.kill()
    psutil.wait_procs([child], timeout=10)
    assert not child.is_running() or child.status() == psutil.STATUS_ZOMBIE


def test_the_child_imports_nothing_of_weight() -> None:
    """Neither torch nor numpy: it starts in a tenth of a second and fits its limit."""
    code = "import sys, engine.dataset.decoder_child; print([m for m in ('torch', 'numpy') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
