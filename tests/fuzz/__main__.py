"""``python -m tests.fuzz [--minutes N] [--corpus DIR] [TARGET ...]``: look for inputs that break a parser.

Each target runs in a process of its own for its share of the time, one after the other: by atheris, guided by
coverage, where it is installed, else by plain mutations. What broke one is kept in ``DIR/TARGET/crash-*``: add the
bytes to the target's ``found``, and they are a case of the gate for ever.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import random
import re
import subprocess
import sys
import time
import traceback
from importlib.util import find_spec
from pathlib import Path

from tests.fuzz.mutate import MOST_BYTES, mutant
from tests.reliability import figure

ROOT = Path(__file__).resolve().parents[2]
INSTRUMENTED = ("engine", "profiles", "tui")


def main(words: list[str]) -> int:
    """Fuzz; 1 where anything was found."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz")
    parser.add_argument("targets", nargs="*", help="names; all where none is given")
    parser.add_argument("--minutes", type=float, default=5.0, help="in all (default 5)")
    parser.add_argument("--corpus", type=Path, default=ROOT / "build" / "fuzz-corpus")
    parser.add_argument("--plain", action="store_true", help="without atheris, even where it is installed")
    parser.add_argument("--child", type=float, help=argparse.SUPPRESS)
    args = parser.parse_args(words)
    if args.child is not None:
        return _child(args.targets[0], args.child, args.corpus, args.plain)
    from tests.fuzz.table import TARGETS

    if unknown := set(args.targets) - set(TARGETS):
        parser.error(f"no such target: {', '.join(sorted(unknown))}; there are {', '.join(TARGETS)}")
    names = args.targets or list(TARGETS)
    failed = []
    for name in names:
        seconds = args.minutes * 60 / len(names)
        count, code = _fuzz(name, seconds, args.corpus, args.plain)
        crashes = len(list((args.corpus / name).glob("crash-*")))
        print(f"{name:18} {count:>10,} executions in {seconds:.0f} s, {crashes} findings kept", flush=True)
        figure("fuzz", f"{name}: executions, findings", f"{count}, {crashes}")
        if code:
            failed.append(name)
    print(f"found something: {', '.join(failed)}" if failed else "nothing found")
    return 1 if failed else 0


def _fuzz(name: str, seconds: float, corpus: Path, plain: bool) -> tuple[int, int]:
    """Run one target in a child; how often it was executed, and the child's exit code."""
    command = [
        sys.executable, "-m", "tests.fuzz", name, "--child", str(seconds), "--corpus", str(corpus),
        *(["--plain"] if plain else []),
    ]  # fmt: skip
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, errors="replace", check=False)
    output = done.stdout + done.stderr
    counts = [
        int(number) for number in re.findall(r"(?:stat::number_of_executed_units:|executions:)\s*(\d+)", output)
    ]
    if done.returncode:
        print(f"--- {name}\n{output[-6000:]}", flush=True)
    return (counts[-1] if counts else 0), done.returncode


def _child(name: str, seconds: float, corpus: Path, plain: bool) -> int:
    place = corpus / name
    place.mkdir(parents=True, exist_ok=True)
    if plain or find_spec("atheris") is None:
        return _plain(name, seconds, place)
    import atheris

    with atheris.instrument_imports(include=list(INSTRUMENTED), enable_loader_override=False):
        from tests.fuzz.table import TARGETS
    target = TARGETS[name]
    for seed in (*target.seeds(), *target.found):
        (place / f"seed-{hashlib.sha256(seed).hexdigest()[:16]}").write_bytes(seed)
    options = [
        f"-max_total_time={max(1, int(seconds))}", f"-max_len={MOST_BYTES}", "-timeout=5", "-rss_limit_mb=4096",
        "-print_final_stats=1", f"-artifact_prefix={place}/", "-verbosity=0",
    ]  # fmt: skip
    os.chdir(ROOT)
    atheris.Setup([sys.argv[0], *options, str(place)], lambda data: _once(target, data))
    atheris.Fuzz()
    return 0


def _once(target: object, data: bytes) -> None:
    target.try_one(data)  # type: ignore[attr-defined]


def _plain(name: str, seconds: float, place: Path) -> int:
    from tests.fuzz.table import TARGETS

    target = TARGETS[name]
    seeds = [*target.seeds(), *target.found]
    draw = random.Random()
    end, count = time.monotonic() + seconds, 0
    while time.monotonic() < end:
        data = mutant(draw, seeds)
        count += 1
        try:
            accepted = target.try_one(data)
        except BaseException:
            (place / f"crash-{hashlib.sha256(data).hexdigest()[:16]}").write_bytes(data)
            traceback.print_exc()
            print(f"executions: {count}\ninput: {data[:400]!r}")
            return 1
        if accepted and len(seeds) < 2000:
            seeds.append(data)
    print(f"executions: {count}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
