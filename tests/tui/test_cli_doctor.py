"""`kiln doctor`: findings on made-up machines, the report at 80 columns, the JSON, the exit code."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from engine.hardware.gpu import Gpu, GpuProcess, Link
from engine.hardware.host import HostMemory
from engine.hardware.software import Answer
from tui.__main__ import main
from tui.commands import doctor
from tui.doctor.finding import Finding, summary, text_of, worst
from tui.doctor.graphics import Graphics, graphics_findings
from tui.doctor.host import Host, Place, host_findings
from tui.doctor.software import Software, build_for, software_findings
from tui.doctor.terminal import terminal_findings
from tui.glyphs import ASCII, UNICODE
from tui.terminal.traits import Traits

ARCHES = ["sm_75", "sm_80", "sm_86", "sm_90", "sm_100", "sm_120"]
ANSWERS = {
    "torch": Answer({"version": "2.13.0+cu130", "cuda": "13.0", "hip": "", "arches": ARCHES, "mps": False}),
    "cuda": Answer({"devices": [{"name": "RTX 4090", "uuid": "0", "computes": True}]}),
    "bitsandbytes": Answer({"version": "0.50.2", "device": "cuda", "cuda": True}),
    "triton": Answer({"version": "3.6.0"}),
}
GOOD = Software((3, 12, 4), ANSWERS, compiler="gcc")
CARD = Gpu(
    0, "GPU-0", "NVIDIA GeForce RTX 4090", 24.0, 0.3, 23.7, (), (8, 9), "580.65", 45.0, 20.0, 0.0,
    cuda=(13, 0), link=Link(1, 4, 4, 16, 16), limit_watts=450.0, default_watts=450.0, display=False,
)  # fmt: skip
MEMORY = HostMemory(4.0, 64.0, 0.1, 8.0, 8.0, False)


def card(name: str, total_gb: float, capability: tuple[int, int], **more: object) -> Gpu:
    return replace(CARD, name=name, total_gb=total_gb, free_gb=total_gb - 0.3, compute_capability=capability, **more)  # type: ignore[arg-type]


def graphics(*gpus: Gpu, **more: object) -> list[Finding]:
    read = Graphics(gpus, "" if gpus else "No NVIDIA driver is installed.", (), ANSWERS["torch"].values)
    visible = ",".join(str(gpu.index) for gpu in gpus)
    return graphics_findings(replace(read, **{"visible": visible, **more}))  # type: ignore[arg-type]


def software(gpus: tuple[Gpu, ...] = (CARD,), **answers: Answer) -> list[Finding]:
    return software_findings(replace(GOOD, answers={**ANSWERS, **answers}), gpus)


def place(free_gb: float | None = 100.0, writable: bool = True) -> Place:
    return Place("caches", Path("/data/cache"), free_gb, writable, 30.0, 3.0)


def host(
    memory: HostMemory = MEMORY, cores: int = 8, places: tuple[Place, ...] = (), wsl: bool = False
) -> list[Finding]:
    return host_findings(Host(memory, cores, 8, places, True, wsl))


def about(findings: list[Finding], words: str) -> Finding:
    """The one finding whose subject or text has ``words`` in it; whatever is not well says what to do."""
    assert all(finding.do for finding in findings if finding.verdict != "ok"), findings
    found = [each for each in findings if words in f"{each.subject} {each.what}"]
    assert len(found) == 1, (words, findings)
    return found[0]


def test_a_good_machine_is_well() -> None:
    findings = [*software(), *graphics(CARD), *host(places=(place(),)), *terminal_findings(Traits(), True)]
    assert worst(findings) == "ok", [each for each in findings if each.verdict != "ok"]
    assert summary(findings) == "All is well."
    assert about(findings, "23.7 of 24.0 GB free").subject == "GPU 0"
    assert "25 GB/s" in about(findings, "PCIe 4.0 x16").what


def test_torch_against_the_driver() -> None:
    old = about(software((replace(CARD, driver="550.54", cuda=(12, 4)),)), "driver")
    assert old.verdict == "bad" and "12.4" in old.what and "Update" in old.do
    minor = {"torch": Answer({**ANSWERS["torch"].values, "cuda": "12.8"})}
    assert about(software((replace(CARD, cuda=(12, 6)),), **minor), "driver").verdict == "ok"
    assert about(software((replace(CARD, cuda=None),)), "driver").verdict == "warn"


def test_torch_without_cuda_beside_a_card() -> None:
    plain = Answer({**ANSWERS["torch"].values, "version": "2.13.0+cpu", "cuda": "", "arches": []})
    found = about(software(torch=plain), "2.13.0+cpu")
    assert found.verdict == "bad" and "cu130" in found.do
    assert about(software((), torch=plain), "2.13.0+cpu").verdict == "ok"
    assert "cu128" in build_for((12, 9)) and "cu126" in build_for((12, 6)) and "driver" in build_for((12, 2))


def test_torch_that_cannot_start_or_is_of_another_time() -> None:
    assert about(software(torch=Answer(error="ImportError: libcudart\x1b[2J")), "cannot be imported").verdict == "bad"
    assert "\x1b" not in about(software(torch=Answer(error="x\x1b[2J")), "cannot be imported").what
    assert about(software(cuda=Answer(error="the process was ended by SIGSEGV")), "SIGSEGV").verdict == "bad"
    later = Answer({**ANSWERS["torch"].values, "version": "2.99.1"})
    assert about(software(torch=later), "2.99.1").verdict == "warn"
    rocm = Answer({**ANSWERS["torch"].values, "cuda": "", "hip": "7.1"})
    assert about(software((), torch=rocm), "ROCm").verdict == "warn"


def test_libraries_beside_torch() -> None:
    assert about(software(bitsandbytes=Answer({"version": ""})), "bitsandbytes").verdict == "warn"
    broken = about(software(bitsandbytes=Answer(error="no libcusparse.so.12")), "bitsandbytes")
    assert broken.verdict == "warn" and "libcusparse" in broken.what and "reinstall" in broken.do
    wrong = Answer({"version": "0.50.2", "device": "cuda", "cuda": False})
    assert "without a library" in about(software(bitsandbytes=wrong), "bitsandbytes").what
    assert about(software(triton=Answer({"version": ""})), "triton").verdict == "warn"
    assert about(software((), triton=Answer({"version": ""})), "triton").verdict == "ok"
    no_compiler = software_findings(replace(GOOD, compiler=""), (CARD,))
    assert "gcc" in about(no_compiler, "triton").do
    assert about(software_findings(replace(GOOD, xformers="0.0.33"), (CARD,)), "xformers").verdict == "ok"
    assert about(software_findings(replace(GOOD, python=(3, 10, 2)), (CARD,)), "Python").verdict == "bad"


def test_no_gpu_and_a_card_without_a_driver() -> None:
    none = about(graphics(), "none that can train")
    assert none.verdict == "bad" and "kiln plan" in none.do
    lost = about(graphics(nvidia_on_bus=True), "an NVIDIA card is in the machine")
    assert lost.verdict == "bad" and "Install the NVIDIA driver" in lost.do
    assert about(graphics(others=("An AMD card is here.",)), "AMD").verdict == "warn"
    assert about(graphics(CARD, others=("An Intel GPU is here.",)), "Intel").verdict == "ok"


def test_a_card_that_this_torch_has_no_code_for() -> None:
    pascal = about(graphics(card("NVIDIA GeForce GTX 1080 Ti", 11.0, (6, 1))), "GTX 1080 Ti")
    assert pascal.verdict == "bad" and "6.1" in pascal.why
    new = about(graphics(card("NVIDIA R999", 64.0, (13, 0))), "not among those")
    assert new.verdict == "bad"
    translated = {"arches": [*ARCHES, "compute_120"]}
    assert about(graphics(card("NVIDIA R999", 64.0, (13, 0)), torch=translated), "newer than").verdict == "warn"
    turing = about(graphics(card("NVIDIA GeForce RTX 2080 Ti", 11.0, (7, 5))), "7.5")
    assert turing.verdict == "warn" and "float32" in turing.why and "int8" in turing.do


def test_a_card_held_by_others_or_too_small() -> None:
    shared = replace(
        CARD, used_gb=1.1, free_gb=22.9, display=True, processes=(GpuProcess(5, 0.6, "Xorg\x1b[0m", True),)
    )
    held = about(graphics(shared), "22.9 of 24.0")
    assert held.verdict == "ok" and "Xorg" in held.why and "\x1b" not in held.why
    busy = replace(CARD, used_gb=20.0, free_gb=4.0, processes=(GpuProcess(6, 19.7, "ollama"),))
    assert about(graphics(busy), "4.0 of 24.0").verdict == "warn"
    unnamed = replace(CARD, used_gb=20.0, free_gb=4.0)
    assert "does not name" in about(graphics(unnamed), "4.0 of 24.0").why
    own = replace(CARD, used_gb=20.0, free_gb=4.0, own_gb=19.7)
    assert about(graphics(own), "23.7 of 24.0").verdict == "ok"
    assert "8 GB" in about(graphics(card("NVIDIA GeForce RTX 2060", 6.0, (7, 5))), "of 6.0 GB").why


def test_links_limits_and_heat_below_what_the_card_could() -> None:
    narrow = about(graphics(replace(CARD, link=Link(1, 4, 4, 4, 16))), "PCIe 4.0 x4")
    assert narrow.verdict == "warn" and "6 of 25 GB/s" in narrow.what
    older = about(graphics(replace(CARD, link=Link(1, 3, 4, 16, 16))), "PCIe 3.0 x16")
    assert older.verdict == "warn" and "12 of 25 GB/s" in older.what
    eight = card("NVIDIA GeForce RTX 4060", 8.0, (8, 9), link=Link(1, 4, 4, 8, 16))
    assert about(graphics(eight), "PCIe 4.0 x8").verdict == "ok"  # it has no more
    idle = about(graphics(replace(CARD, link=Link(1, 4, 4, 16, 16))), "PCIe")
    assert idle.verdict == "ok"  # the generation now says nothing
    assert about(graphics(replace(CARD, limit_watts=360.0)), "360 W").verdict == "ok"
    assert "-pl 450" in about(graphics(replace(CARD, limit_watts=200.0)), "200 W").do
    assert about(graphics(replace(CARD, celsius=91.0)), "91 °C").verdict == "warn"


def test_no_sensor_is_no_finding() -> None:
    bare = replace(CARD, link=Link(), limit_watts=None, default_watts=None, celsius=None, display=None)
    bare = replace(bare, compute_capability=None, used_gb=None)
    (found,) = graphics(bare)
    assert found.verdict == "ok"


def test_several_cards() -> None:
    small, large = card("NVIDIA GeForce RTX 3060", 12.0, (8, 6)), replace(CARD, index=1, uuid="GPU-1")
    choice = about(graphics(small, large), "choice")
    assert choice.verdict == "warn" and "RTX 4090" in choice.what and "6.5 times" in choice.why
    assert 'training.device = "cuda:1"' in choice.do
    devices = [{"uuid": "1", "computes": True}, {"uuid": "0", "computes": True}]
    assert about(graphics(small, large, devices=devices), "numbers").verdict == "warn"
    assert about(graphics(large, replace(small, index=2, uuid="GPU-2")), "choice").verdict == "ok"
    old = card("NVIDIA GeForce GTX 1080 Ti", 11.0, (6, 1), index=3, uuid="GPU-3")
    assert about(graphics(CARD, old), "GTX 1080 Ti").verdict == "warn"  # the other one trains
    hidden = about(graphics(CARD, large, visible="0"), "GPU 1")
    assert hidden.verdict == "warn" and "CUDA_VISIBLE_DEVICES" in hidden.do
    assert about(graphics(CARD, visible=""), "GPU 0").verdict == "bad"
    assert about(graphics(CARD, devices=[{"uuid": "0", "computes": False}]), "products").verdict == "bad"


def test_slices() -> None:
    whole = card("NVIDIA A100-SXM4-40GB", 40.0, (8, 0), mig=True)
    assert "-mig 0" in about(graphics(whole), "GPU 0").do
    part = card("NVIDIA A100-SXM4-40GB MIG 3g.20gb", 19.5, (8, 0), mig=True, slice="3g.20gb", link=Link())
    assert about(graphics(part), "19.2 of 19.5 GB free").subject == "GPU 0 3g.20gb"


def test_host_memory_swap_processors_and_wsl() -> None:
    assert about(host(replace(MEMORY, used=60.0)), "memory").verdict == "bad"
    assert about(host(replace(MEMORY, used=52.0)), "memory").verdict == "warn"
    bare = replace(MEMORY, total=32.0, swap=0.0)
    assert (
        about(host(bare), "swap").verdict == "warn" and about(host(replace(MEMORY, swap=0.0)), "swap").verdict == "ok"
    )
    assert about(host(replace(MEMORY, limited=True)), "container").verdict == "ok"
    assert about(host(cores=2), "processors").what == "2 usable of 8"
    assert about(host(wsl=True), "WSL").verdict == "warn"


def test_disks() -> None:
    verdicts = [
        about(host(places=(each,)), "caches").verdict for each in (place(40), place(20), place(1), place(None))
    ]
    assert verdicts == ["ok", "warn", "bad", "warn"]
    assert about(host(places=(place(writable=False),)), "caches").verdict == "bad"
    assert about(host(places=(place(), replace(place(), name="runs"))), "one disk").verdict == "ok"


def test_terminals() -> None:
    assert about(terminal_findings(Traits(term="dumb"), False), "dumb").verdict == "warn"
    assert about(terminal_findings(None, False), "none here").verdict == "ok"
    assert about(terminal_findings(Traits(utf8=False), True), "characters").verdict == "warn"
    assert about(terminal_findings(Traits(term="linux", colorterm=""), True), "Linux console").verdict == "warn"
    assert "16 million" in about(terminal_findings(Traits(colorterm="truecolor"), True), "colours").what
    assert about(terminal_findings(Traits(term="vt100"), True), "colours").verdict == "warn"
    assert "NO_COLOR" in about(terminal_findings(Traits(no_color=True), True), "colours").what
    assert "sixel" in about(terminal_findings(Traits(images="sixel"), True), "pictures").what
    assert "tmux" in about(terminal_findings(Traits(multiplexer=True), True), "pictures").why
    assert about(terminal_findings(Traits(columns=60), True), "size").verdict == "warn"
    assert "140 ms" in about(terminal_findings(Traits(ssh=True, round_trip_ms=140.0), True), "SSH").what


@pytest.mark.parametrize("glyphs", [UNICODE, ASCII])
def test_the_report_keeps_to_80_columns_and_tells_by_sign_and_word(glyphs: object) -> None:
    small = card("NVIDIA GeForce RTX 3060", 12.0, (8, 6), link=Link(1, 4, 4, 4, 16))
    findings = [
        *software(),
        *graphics(small, replace(CARD, index=1, uuid="GPU-1")),
        *graphics(),
        *host(cores=2, wsl=True),
    ]
    text = text_of(findings, glyphs)  # type: ignore[arg-type]
    assert all(len(line) <= 80 for line in text.splitlines())
    assert f"  {glyphs.done} ok    Python" in text and f"  {glyphs.error} bad   GPU" in text  # type: ignore[attr-defined]
    assert f"  {glyphs.warning} warn  GPU 0" in text and f"{glyphs.arrow} Put it in the slot" in text  # type: ignore[attr-defined]
    assert text.endswith("1 problem and 4 warnings.")
    assert glyphs is UNICODE or text.isascii()


def made_up(monkeypatch: pytest.MonkeyPatch, *gpus: Gpu) -> None:
    monkeypatch.setattr(doctor, "probe_gpus", lambda: (list(gpus), "" if gpus else "No NVIDIA driver is installed."))
    monkeypatch.setattr(doctor, "ask_software", lambda: ANSWERS)
    monkeypatch.setattr(doctor, "other_graphics", lambda: ())
    monkeypatch.setattr(doctor, "read_memory", lambda: MEMORY)
    monkeypatch.setattr(doctor, "free_disk_gb", lambda path: 100.0)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)


def test_the_command_tells_by_its_exit_code(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    made_up(monkeypatch, CARD)
    assert main(["doctor", "--runs-dir", str(tmp_path / "runs"), "--cache-dir", str(tmp_path)]) == 0
    told = capsys.readouterr()
    assert "RTX 4090 24 GB: 23.7 of 24.0 GB free" in told.out and told.err == ""
    assert str(tmp_path / "runs") in told.out.replace("\n" + " " * 25, "")
    made_up(monkeypatch)
    assert main(["doctor", "--cache-dir", str(tmp_path)]) == 1


def test_the_report_as_json(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    made_up(monkeypatch, replace(CARD, name="NVIDIA \x1b]0;x\x07"))
    main(["doctor", "--json", "--cache-dir", str(tmp_path)])
    told = capsys.readouterr().out
    assert told.count("\n") == 1
    read = json.loads(told)
    assert set(read) == {"lorakiln", "verdict", "findings", "gpus"}
    assert {"area", "subject", "verdict", "what", "why", "do"} == set(read["findings"][0])
    assert read["gpus"][0]["vram_gb"] == 24.0 and "\x1b" not in json.loads(told)["gpus"][0]["name"]
