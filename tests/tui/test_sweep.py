"""Sweeps: what is planned, what survives, what is trained again and what is not."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest
from pocket import pictures, pocket_config
from safetensors.torch import load_file
from test_comparing import CONFIG, DEEPER, FALLING, course, make

from engine.config_file import load_config, parse_config
from engine.errors import ConfigError, RunError
from engine.events import Advised, EventLog, RunFailed, StateChanged
from engine.files import RunFolder
from engine.locks import lock_folder
from tui.__main__ import main
from tui.commands.runs import table
from tui.run_list import list_runs
from tui.run_shelf import run_folders
from tui.sweep import RANK, RATE, SEED, Axis, axis_of, measures, plan_sweep
from tui.sweep import measured as measuring
from tui.sweep_file import Sweep, create_sweep, look_at, next_sweep_folder, read_sweep
from tui.sweep_run import Runner, result_of

PLAIN = CONFIG.replace('[validation]\nevery_epochs = "auto"\n', "")


def plan(tmp_path: Path, *axes: Axis, text: str = PLAIN) -> list[Any]:
    return plan_sweep(parse_config(text), axes, tmp_path / "NAME-sweep")


def test_the_usual_rates_are_tried_with_everything_else_alike(tmp_path: Path) -> None:
    runs = plan(tmp_path)
    assert [run.name for run in runs] == ["NAME-lr5e-05", "NAME-lr0.0001", "NAME-lr0.0002"]
    assert [run.config.optimizer.learning_rate for run in runs] == [5e-5, 1e-4, 2e-4]
    first, *others = (run.config.model_dump() for run in runs)
    for other in others:
        assert {key for key in first if first[key] != other[key]} == {"name", "optimizer"}
    assert first["runs_dir"] == (tmp_path / "NAME-sweep").absolute()
    assert all(measures(run.config) and run.config.validation.every_epochs == "auto" for run in runs)


def test_every_combination_is_a_run_with_a_name_of_its_own(tmp_path: Path) -> None:
    runs = plan(tmp_path, Axis(RATE, (5e-5, 1e-4, 5e-5)), Axis(RANK, (8, 16)), axis_of("lora.dropout=0.1"))
    assert [run.name for run in runs] == [
        "NAME-lr5e-05-r8", "NAME-lr5e-05-r16", "NAME-lr0.0001-r8", "NAME-lr0.0001-r16",
    ]  # fmt: skip
    assert all(run.config.lora.dropout == 0.1 for run in runs)
    seeds = plan(tmp_path, Axis(SEED, (1, 2)), axis_of("objective.timestep_sampling=shift,sigmoid"))
    assert [run.name for run in seeds][:2] == ["NAME-s1-timestep_samplingshift", "NAME-s1-timestep_samplingsigmoid"]
    odd = plan(tmp_path, axis_of('saving.comment="a b","a/b","a_b"'), text=PLAIN.replace("NAME", "n" * 80))
    assert len({run.name for run in odd}) == 3 and all(len(run.name) <= 80 for run in odd)


@pytest.mark.parametrize(
    ("text", "key", "values"),
    [
        ("lora.rank=8,16", "lora.rank", (8, 16)),
        ("optimizer.name = adamw, lion", "optimizer.name", ("adamw", "lion")),
        ('dataset.captions.trigger_word="a,b","c"', "dataset.captions.trigger_word", ("a,b", "c")),
        ("validation.sigmas=[0.1,0.5],[0.2]", "validation.sigmas", ([0.1, 0.5], [0.2])),
        ("dataset.flip=true", "dataset.flip", (True,)),
    ],
)
def test_values_are_those_of_toml_or_words(text: str, key: str, values: tuple[Any, ...]) -> None:
    assert axis_of(text) == Axis(key, values)


@pytest.mark.parametrize(
    ("axes", "why"),
    [
        ((Axis("lora.rnk", (1,)),), "did you mean lora.rank"),
        ((Axis(RANK, (8, 0)),), "greater than or equal to 1"),
        ((Axis(RANK, tuple(range(1, 10))), Axis(SEED, tuple(range(8)))), "9 x 8 = 72, of at most 64"),
        ((Axis("runs_dir", ("a",)),), "the sweep's own"),
        ((Axis(RANK, (8,)), Axis(RANK, (16,))), "given twice"),
        ((Axis("seed.x", (8,)),), "seed"),
    ],
)
def test_what_cannot_be_is_refused(tmp_path: Path, axes: tuple[Axis, ...], why: str) -> None:
    with pytest.raises(ConfigError) as told:
        plan(tmp_path, *axes)
    assert why in str(told.value)


def test_what_the_configuration_says_of_measuring_stands() -> None:
    for said in ("every_epochs = 0", "every_epochs = 3", "every_steps = 5"):
        config = parse_config(f"{PLAIN}[validation]\n{said}\n")
        assert measuring(config) is config
    assert not measures(parse_config(f"{PLAIN}[validation]\nevery_epochs = 0\n"))
    assert not measures(parse_config(f"{PLAIN}[validation]\nevery_epochs = 1\nheld_out = 0\n"))


@pytest.fixture
def sweep(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Sweep:
    """A sweep of three runs, none begun."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "NAME.toml").write_text(PLAIN)
    config = load_config(tmp_path / "NAME.toml")
    folder = next_sweep_folder(config)
    return create_sweep(folder, plan_sweep(config, [], folder))


class Child:
    """Stands for the process of a run."""

    def __init__(self, code: int = 0, during: Callable[[Child], None] | None = None) -> None:
        self.code = code
        self.signals: list[int] = []
        self._during = during

    def wait(self) -> int:
        if self._during is not None:
            self._during(self)
        return self.code

    def send_signal(self, signum: int) -> None:
        self.signals.append(signum)


class Kiln:
    """Starts runs that are over at once, as planned by name; notes what it was asked."""

    def __init__(self, plan: dict[str, Callable[[Path], Child]] | None = None) -> None:
        self.asked: list[list[str]] = []
        self._plan = plan or {}

    def __call__(self, words: list[str]) -> Any:
        self.asked.append(words)
        name = Path(words[1]).name.removesuffix(".toml")
        folder = Path(words[1]) if words[0] == "resume" else Path(words[1]).parents[1] / name
        return self._plan.get(name, finish)(folder)


def finish(folder: Path) -> Child:
    """The run finishes, new or gone on with."""
    if not folder.exists():
        make(folder, course(DEEPER if "0.0002" in folder.name else FALLING))
    else:
        end(folder, StateChanged("training"), StateChanged("finished"))
    return Child()


def end(folder: Path, *events: Any) -> None:
    log = EventLog(folder / "events.jsonl")
    for event in events:
        log.append(event)
    log.close()


def fail(folder: Path) -> Child:
    make(folder, course(FALLING)[:3])
    end(folder, RunFailed("It broke", "", "", ""), StateChanged("failed"))
    return Child(1)


def stop(folder: Path) -> Child:
    make(folder, course(FALLING)[:3])
    end(folder, StateChanged("stopped"))
    return Child(3)


def states(sweep: Sweep) -> list[str]:
    return [run.state for run in read_sweep(sweep.folder).runs]


def test_runs_are_trained_one_after_the_other(sweep: Sweep) -> None:
    kiln = Kiln()
    Runner(sweep, lambda line: None, start=kiln).work()
    assert [words[0] for words in kiln.asked] == ["train"] * 3
    assert states(sweep) == ["finished"] * 3
    folders, left = result_of(read_sweep(sweep.folder))
    assert [folder.name for folder in folders] == [run.name for run in sweep.runs] and not left
    again = Kiln()
    Runner(read_sweep(sweep.folder), lambda line: None, start=again).work()
    assert again.asked == []


def test_a_run_that_fails_does_not_end_the_sweep_and_is_gone_on_with_later(sweep: Sweep) -> None:
    said: list[str] = []
    kiln = Kiln({"NAME-lr5e-05": fail, "NAME-lr0.0001": lambda folder: Child(2)})
    Runner(sweep, said.append, start=kiln).work()
    assert states(sweep) == ["failed", "failed", "finished"]
    assert "NAME-lr5e-05: failed (exit code 1)" in said and "NAME-lr0.0001: did not begin (exit code 2)" in said
    kiln = Kiln()
    Runner(read_sweep(sweep.folder), said.append, consent=True, start=kiln).work()
    assert [words[0] for words in kiln.asked] == ["resume", "train"] and kiln.asked[0][2:] == ["--yes"]
    assert states(sweep) == ["finished"] * 3


def test_a_signal_stops_the_run_and_the_sweep_which_goes_on_where_it_was(sweep: Sweep) -> None:
    children: list[Child] = []

    def stopped(folder: Path) -> Child:
        def during(child: Child) -> None:
            os.kill(os.getpid(), signal.SIGINT)
            make(folder, course(FALLING)[:3])
            end(folder, StateChanged("stopped"))

        children.append(Child(130, during))
        return children[0]

    runner = Runner(sweep, lambda line: None, start=Kiln({"NAME-lr0.0001": stopped}))
    runner.work()
    assert runner.stop_signal == signal.SIGINT and children[0].signals == [signal.SIGINT]
    assert states(sweep) == ["finished", "stopped", "waiting"]
    kiln = Kiln()
    Runner(read_sweep(sweep.folder), lambda line: None, start=kiln).work()
    assert [(words[0], Path(words[1]).name) for words in kiln.asked] == [
        ("resume", "NAME-lr0.0001"), ("train", "NAME-lr0.0002.toml"),
    ]  # fmt: skip
    assert states(sweep) == ["finished"] * 3


def test_a_lost_terminal_is_handed_on_and_ends_nothing(sweep: Sweep) -> None:
    seen: list[int] = []

    def hung_up(folder: Path) -> Child:
        def during(child: Child) -> None:
            os.kill(os.getpid(), signal.SIGHUP)
            seen.extend(child.signals)
            finish(folder)

        return Child(0, during)

    Runner(sweep, lambda line: None, start=Kiln({"NAME-lr5e-05": hung_up})).work()
    assert seen == [signal.SIGHUP] and states(sweep) == ["finished"] * 3


class Killed(BaseException):
    """Stands for the end of the process at some moment."""


@pytest.mark.parametrize("after", range(8))
def test_a_sweep_that_is_killed_at_any_write_goes_on_without_repeating_what_is_done(
    sweep: Sweep, after: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tui import sweep_file

    writes, kiln = 0, Kiln({"NAME-lr0.0001": stop})
    real = sweep_file.atomic_write

    def dying(path: Path, data: str) -> None:
        nonlocal writes
        if writes == after:
            raise Killed
        writes += 1
        real(path, data)

    monkeypatch.setattr(sweep_file, "atomic_write", dying)
    try:
        Runner(sweep, lambda line: None, start=kiln).work()
    except Killed:
        assert writes == after
    monkeypatch.setattr(sweep_file, "atomic_write", real)
    finished = [run.name for run in sweep.runs if look_at(sweep, run.name).done]
    later = Kiln()
    Runner(read_sweep(sweep.folder), lambda line: None, start=later).work()
    assert states(sweep) == ["finished"] * 3
    assert not {Path(words[1]).name.removesuffix(".toml") for words in later.asked} & set(finished)
    assert len(list_runs(sweep.folder)) == 3, "no run was begun twice"


def test_a_run_that_ended_itself_past_its_best_is_done(sweep: Sweep) -> None:
    name = sweep.runs[0].name
    make(sweep.folder / name, course(FALLING), stop__mode="stop")
    end(sweep.folder / name, Advised(80, 8, "over", 3, 4, 4, "", over=True), StateChanged("stopped"))
    assert look_at(sweep, name).done
    make(sweep.folder / sweep.runs[1].name, course(FALLING), stop__mode="advise")
    end(sweep.folder / sweep.runs[1].name, Advised(80, 8, "over", 3, 4, 4, "", over=True), StateChanged("stopped"))
    assert not look_at(sweep, sweep.runs[1].name).done


def test_a_folder_that_a_kill_left_empty_is_passed_over(sweep: Sweep) -> None:
    name = sweep.runs[0].name
    (sweep.folder / name).mkdir()
    assert look_at(sweep, name).folder is None
    make(sweep.folder / f"{name}-2", course(FALLING))
    assert look_at(sweep, name).done


def test_two_cannot_work_on_one_sweep(sweep: Sweep) -> None:
    with lock_folder(RunFolder(sweep.folder)), pytest.raises(RunError, match="being worked on"):
        Runner(sweep, lambda line: None, start=Kiln()).work()


def test_the_manifest_names_nothing_outside_its_folder(sweep: Sweep) -> None:
    path = sweep.folder / "sweep.toml"
    text = path.read_text()
    for name in ("../x", ".hidden", "a/b", "", "a\\u001b"):
        path.write_text(text.replace("NAME-lr5e-05", name, 1))
        with pytest.raises(ConfigError):
            read_sweep(sweep.folder)
    path.write_text(text.replace("NAME-lr5e-05", "NAME-lr0.0001", 1))
    with pytest.raises(RunError, match="twice"):
        read_sweep(sweep.folder)


def test_its_runs_are_listed_like_others(sweep: Sweep, capsys: pytest.CaptureFixture[str]) -> None:
    Runner(sweep, lambda line: None, start=Kiln()).work()
    make(sweep.folder.parent / "alone", course(FALLING))
    assert main(["runs"]) == 0
    out = capsys.readouterr().out
    assert all(name in out for name in ("alone", "NAME-lr5e-05", "NAME-lr0.0002"))
    assert main(["compare", "alone", "NAME-lr0.0002"]) == 0 and "Best of 2: NAME-lr0.0002" in capsys.readouterr().out
    assert main(["compare", "NAME-sweep"]) == 0 and "Best of 3: NAME-lr0.0002" in capsys.readouterr().out
    assert len(table(list_runs(sweep.folder.parent)).splitlines()) == 5
    shelf = {folder.name for folder in run_folders([sweep.folder.parent])}
    assert shelf == {"alone", *(run.name for run in sweep.runs)}, "the runs screen has them too"


def test_the_command_says_first_what_it_would_train(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "cat.toml").write_text(PLAIN)
    assert main(["sweep", "cat.toml", "--rates", "1e-4,3e-4", "--ranks", "8,16", "--dry-run"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("4 runs in ") and "NAME-lr0.0003-r16  optimizer.learning_rate = 0.0003" in out
    assert "cannot be told" in out, "the model is not there"
    assert main(["sweep", "cat.toml"]) == 2 and "--yes" in capsys.readouterr().err
    assert not (tmp_path / "runs").exists(), "nothing is written before it is agreed to"
    for words in (["cat.toml", "--resume", "x"], [], ["--resume", "x", "--seeds", "1"], ["--resume", "runs"]):
        assert main(["sweep", *words]) == 2
    for words in (["--rates", "0"], ["--rates", "a"], ["--ranks", "0"], ["--seeds", "-1"], ["--set", "x"]):
        assert main(["sweep", "cat.toml", *words]) == 2


def test_at_the_end_the_runs_are_compared(
    sweep: Sweep, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("tui.commands.sweep.Runner", lambda *args: Runner(*args, start=Kiln({"NAME-lr5e-05": fail})))
    assert main(["sweep", "--resume", str(sweep.folder)]) == 1
    out, err = capsys.readouterr()
    assert "Best of 3: NAME-lr0.0002" in out and "Not done: NAME-lr5e-05" in err
    assert f"kiln sweep --resume {sweep.folder}" in err


@pytest.fixture
def pocket_sweep(tmp_path: Path) -> Path:
    """A configuration of the pocket model that a sweep of seconds can be made of."""
    pictures(tmp_path / "data", 14)
    config = pocket_config(tmp_path, name="cat", training={"epochs": 3, "accumulation": 1})
    folder = next_sweep_folder(config)
    create_sweep(folder, plan_sweep(config, [Axis(RATE, (1e-3, 4e-3))], folder))
    return folder


def kiln(*words: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-P", "-m", "tui", *words],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, text=True,
    )  # fmt: skip


@pytest.mark.slow
def test_a_sweep_of_the_pocket_model(pocket_sweep: Path) -> None:
    child = kiln("sweep", "--resume", str(pocket_sweep))
    out, _ = child.communicate(timeout=240)
    assert child.returncode == 0, out
    assert "Best of 2: cat-lr0.004" in out
    assert states(read_sweep(pocket_sweep)) == ["finished", "finished"]


def run_to_end(folder: Path) -> str:
    child = kiln("sweep", "--resume", str(folder))
    out, _ = child.communicate(timeout=600)
    assert child.returncode == 0, out
    return str(out)


@pytest.mark.crash
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("seed", range(4))
def test_a_real_sweep_killed_anywhere_ends_as_one_that_was_not(pocket_sweep: Path, tmp_path: Path, seed: int) -> None:
    """Its own process alone, or the run's with it; the files it ends with are the same bits."""
    undisturbed = tmp_path / "undisturbed"
    shutil.copytree(pocket_sweep, undisturbed)
    for path in (undisturbed / "configs").iterdir():
        path.write_text(path.read_text().replace(str(pocket_sweep), str(undisturbed)))
    draw = random.Random(seed)
    for _ in range(3):
        child = kiln("sweep", "--resume", str(pocket_sweep))
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.communicate(timeout=draw.uniform(1, 25))
        victims = psutil.Process(child.pid).children(recursive=True) if child.poll() is None else []
        child.kill()
        for victim in victims if draw.random() < 0.6 else ():
            with contextlib.suppress(psutil.NoSuchProcess):
                victim.kill()
        child.wait()
    run_to_end(pocket_sweep)
    run_to_end(undisturbed)
    for folder in (pocket_sweep, undisturbed):
        assert [run.name for run in list_runs(folder)] == ["cat-lr0.001", "cat-lr0.004"]
        assert states(read_sweep(folder)) == ["finished", "finished"]
    for name in ("cat-lr0.001", "cat-lr0.004"):
        files = [load_file(root / name / f"{name}.safetensors") for root in (pocket_sweep, undisturbed)]
        assert files[0].keys() == files[1].keys()
        assert all(files[0][key].equal(files[1][key]) for key in files[0])
