"""Configuration files: what is accepted, what is refused and in which words, and that writing loses nothing."""

from __future__ import annotations

import errno
import os
import random
from pathlib import Path

import pytest

from engine import config_file
from engine.config import CaptionConfig, FolderConfig, LoraConfig, OptimizerConfig, PromptConfig, RunConfig
from engine.config_file import load_config, parse_config, save_config, update_config
from engine.config_writer import config_text, field_docs
from engine.errors import ConfigError, DiskError

MINIMAL = """\
version = 1
name = "cat"

[model]
transformer = "m/flux.safetensors"
autoencoder = "/abs/ae.safetensors"
clip_l = "m/clip.safetensors"
t5 = "m/t5.safetensors"

[dataset]
resolution = 512

[[dataset.folders]]
path = "pictures"

[lora]
rank = 8
"""


def write(folder: Path, text: str | bytes) -> Path:
    path = folder / "run.toml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def refusal(folder: Path, text: str | bytes) -> ConfigError:
    with pytest.raises(ConfigError) as caught:
        load_config(write(folder, text))
    return caught.value


def test_relative_paths_count_from_the_files_folder(tmp_path: Path) -> None:
    config = load_config(write(tmp_path, MINIMAL))
    assert config.model.transformer == tmp_path / "m/flux.safetensors"
    assert config.model.autoencoder == Path("/abs/ae.safetensors")
    assert config.dataset.folders[0].path == tmp_path / "pictures"
    assert config.runs_dir == tmp_path / "runs"
    assert config.cache_dir is None
    assert parse_config(MINIMAL).model.transformer == Path("m/flux.safetensors")


def test_a_relative_source_gives_absolute_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, MINIMAL)
    monkeypatch.chdir(tmp_path)
    assert load_config(Path("run.toml")).runs_dir == tmp_path / "runs"


def test_an_unknown_key_names_file_line_and_nearest_key(tmp_path: Path) -> None:
    error = refusal(tmp_path, MINIMAL.replace("rank = 8", "rnak = 8"))
    assert f"{tmp_path}/run.toml, line 17: lora.rnak is not a known key; did you mean lora.rank?" in error.detail


def test_every_problem_is_listed_with_its_line(tmp_path: Path) -> None:
    text = MINIMAL.replace('t5 = "m/t5.safetensors"\n', "") + (
        'alpha = nan\nranks = { img_attn = -1 }\ninclude = "x"\n[training]\nepochs = -1\nbatch_size = 1_000_000_000\n'
        'steps = true\n[optimizer]\nlearning_rate = "1e-4"\neps = inf\n[saving]\nlayouts = ["kohya", "difusers"]\n'
        'dtype = "bf16"\ntitle = 2024-01-01\n[[dataset.folders]]\nrepeats = 2\n[extra]\nx = 1\n'
    )
    error = refusal(tmp_path, text)
    assert error.title == "run.toml has 14 problems"
    expected = [
        "line 4: model.t5 is missing; it belongs in [model]",
        "line 17: lora.alpha is nan; it should be a finite number",
        "line 18: lora.ranks.img_attn is -1; it should be greater than or equal to 0",
        'line 19: lora.include is "x"; it should be a valid array',
        "line 21: training.epochs is -1; it should be greater than or equal to 0",
        "line 22: training.batch_size is 1000000000; it should be less than or equal to 4096",
        "line 23: training.steps is true; it should be a valid integer",
        'line 25: optimizer.learning_rate is "1e-4"; it should be a valid number',
        "line 26: optimizer.eps is inf; it should be a finite number",
        'line 28: saving.layouts[2] is "difusers"; it should be one of kohya, diffusers; did you mean "diffusers"?',
        'line 29: saving.dtype is "bf16"; it should be one of float32, bfloat16, float16',
        "line 30: saving.title is a date or time",
        "line 31: dataset.folders[2].path is missing; it belongs in [dataset.folders[2]]",
        "line 33: extra is not a known key",
    ]
    lines = error.detail.splitlines()
    assert len(lines) == len(expected)
    for line, want in zip(lines, expected, strict=True):
        assert want in line, line


def test_rules_over_several_fields_point_at_the_field(tmp_path: Path) -> None:
    text = MINIMAL + '[objective]\nguidance = 1\nprediction = "additive"\n[training]\nsteps = 0\nepochs = 0\n'
    detail = refusal(tmp_path, text).detail
    assert 'line 20: objective.prediction = "additive" compares' in detail
    assert "line 23: training.epochs and steps are both 0" in detail


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("name = [1,\n2", "line 2: Unclosed array"),
        ("name = 1\nname = 2", "line 2: Cannot overwrite a value"),
        ("name = x", "line 1, column 8"),
        ("x = " + "[" * 3000, "levels"),
        ("x = " + "[" * 60 + "]" * 60, "levels"),
        (".".join(["a"] * 5000) + " = 1", "levels"),
        ("\nseed = " + "9" * 100_000, "line 2: a number with thousands of digits"),
        ('name = "\x1b]52;c;QQ==\x07"', "line 1, column 9"),
        ("# " + "x" * 300_000, "256 kB"),
        (b"\xef\xbb\xbfversion = 1", "line 1: TOML is plain UTF-8"),
        ("version = 1".encode("utf-16"), "line 1: TOML is plain UTF-8"),
        (b"version = 1\nname = '\xe9'", "line 2: byte 0xe9 is no UTF-8"),
        ("version = 2", "version 2; this lorakiln reads up to 1"),
        ('version = "1"', 'version is "1"; it should be one of 1'),
    ],
)
def test_what_is_no_configuration_is_told_why(tmp_path: Path, text: str | bytes, words: str) -> None:
    assert words in str(refusal(tmp_path, text))


def test_a_huge_file_of_tables_is_refused_quickly(tmp_path: Path) -> None:
    error = refusal(tmp_path, "\n".join(f"[a{number}]" for number in range(25_000)))
    assert "problems" in error.title


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ("~/models/x", "~ is not expanded"),
        ("~root/x", "~ is not expanded"),
        ("", "empty path"),
        ("a\\u0000b", "is no path"),
        ("https://example.org/flux.safetensors", "is an address"),
    ],
)
def test_paths_of_strangers_are_not_expanded(tmp_path: Path, value: str, words: str) -> None:
    error = refusal(tmp_path, MINIMAL.replace("m/flux.safetensors", value))
    assert words in error.detail
    assert "line 5: model.transformer" in error.detail


def test_variables_in_paths_stay_as_they_are(tmp_path: Path) -> None:
    config = load_config(write(tmp_path, MINIMAL.replace("m/flux.safetensors", "$HOME/$(id)")))
    assert config.model.transformer == tmp_path / "$HOME/$(id)"


def test_escape_sequences_in_keys_and_values_never_reach_the_message(tmp_path: Path) -> None:
    text = MINIMAL + '"\\u001b]0;t\\u0007" = 1\ndropout = "\\u001b[2J"\n'
    message = str(refusal(tmp_path, text))
    assert "\x1b" not in message
    assert "\\x1b[2J" in message


@pytest.mark.parametrize("key", ["__class__", "__init__", "model_config", "model_fields"])
def test_python_names_are_unknown_keys(tmp_path: Path, key: str) -> None:
    assert f"{key} is not a known key" in refusal(tmp_path, f"{key} = 1\n" + MINIMAL).detail


def test_missing_files_folders_and_pipes_are_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "run").mkdir()
    (tmp_path / "run/config.toml").write_text(MINIMAL)
    for name, words in {"none.toml": "does not exist", "pipe": "no regular file", "run": "is a folder"}.items():
        with pytest.raises(ConfigError, match=words):
            load_config(tmp_path / name)
    with pytest.raises(ConfigError, match=r"Is .*config\.toml meant"):
        load_config(tmp_path / "run")
    with pytest.raises(ConfigError, match="cannot be read"):
        load_config(tmp_path / "a\0b")


def test_an_older_version_is_migrated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def from_zero(table: dict[str, object]) -> dict[str, object]:
        return {
            **{key: value for key, value in table.items() if key != "title"},
            "name": table["title"],
            "version": 1,
        }

    monkeypatch.setitem(config_file.MIGRATIONS, 0, from_zero)
    old = MINIMAL.replace("version = 1", "version = 0").replace("name =", "title =")
    assert load_config(write(tmp_path, old)).name == "cat"


def random_config(rng: random.Random) -> RunConfig:
    """A valid configuration with unusual values in it."""

    def text() -> str:
        return "".join(rng.choice("aé💥\"'\\\n\t\x1b\x7f\u2028#]}=") for _ in range(rng.randint(1, 12)))

    base = parse_config(MINIMAL, Path("/base/run.toml"))
    folders = tuple(
        FolderConfig(path=Path("/p") / f"{rng.random()}\u2028 \"'é", repeats=rng.randint(0, 9)) for _ in range(3)
    )
    return RunConfig(
        name=text(),
        seed=rng.randint(0, 2**63 - 1),
        runs_dir=Path("/runs"),
        cache_dir=rng.choice([None, Path("/cache")]),
        model=base.model,
        dataset=base.dataset.model_copy(
            update={"folders": folders, "captions": CaptionConfig(prefix=text(), extensions=(text(), ".txt"))}
        ),
        lora=LoraConfig(
            ranks={"single": 4, "img_attn": 0} if rng.random() < 0.5 else {},
            alphas={"txt_mlp": rng.random() + 1e-9},
            alpha=rng.choice([None, 10.0 ** rng.randint(-30, 20)]),
            include=(text(), r"double_blocks\.\d+"),
        ),
        optimizer=OptimizerConfig(learning_rate=10.0 ** rng.uniform(-12, 1), eps=5e-324),
        sampling=base.sampling.model_copy(
            update={"prompts": tuple(PromptConfig(prompt=text(), width=rng.choice([None, 64])) for _ in range(2))}
        ),
    )


@pytest.mark.parametrize("seed", range(20))
def test_what_is_saved_loads_back_equal(tmp_path: Path, seed: int) -> None:
    config = random_config(random.Random(seed))
    path = tmp_path / "config.toml"
    save_config(config, path, "A title\nof two lines")
    assert load_config(path) == config


def test_saving_makes_paths_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    save_config(parse_config(MINIMAL), tmp_path / "elsewhere.toml")
    loaded = load_config(tmp_path / "elsewhere.toml")
    assert loaded.model.transformer == tmp_path / "m/flux.safetensors"


def test_the_written_file_documents_every_field() -> None:
    text = config_text(parse_config(MINIMAL))
    assert "# Strength is alpha / rank; unset means alpha = rank.\n# alpha = (unset)\n" in text
    assert "One of: constant, linear, cosine" in text
    assert "rank" not in field_docs(FolderConfig)
    assert "kohya" in field_docs(FolderConfig)["repeats"]


def test_a_path_that_is_no_utf8_cannot_be_saved(tmp_path: Path) -> None:
    config = parse_config(MINIMAL).model_copy(update={"runs_dir": Path(os.fsdecode(b"/r/\xff"))})
    with pytest.raises(ConfigError, match="UTF-8"):
        save_config(config, tmp_path / "config.toml")


def test_editing_keeps_comments_and_checks_first(tmp_path: Path) -> None:
    path = write(tmp_path, MINIMAL.replace("rank = 8", "rank = 8  # small\n# end"))
    config = update_config(
        path,
        {"lora.rank": 32, "dataset.folders.0.repeats": 3, "training.epochs": 5, "lora.ranks": {"single": 2},
         "model.clip_tokenizer": Path("/tok")},
    )  # fmt: skip
    text = path.read_text()
    assert "rank = 32  # small\n# end" in text
    assert (config.lora.rank, config.dataset.folders[0].repeats, config.training.epochs) == (32, 3, 5)
    assert config.lora.ranks == {"single": 2}
    assert update_config(path, {"lora.ranks": None}).lora.ranks == {}
    before = path.read_bytes()
    with pytest.raises(ConfigError, match=r"lora\.rank"):
        update_config(path, {"lora.rank": 0})
    with pytest.raises(ConfigError, match="No such key"):
        update_config(path, {"lora.rank.x": 0})
    assert path.read_bytes() == before


def test_a_read_only_disk_is_a_clear_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path, MINIMAL)

    def refuse(*_: object) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr("engine.files.os.replace", refuse)
    with pytest.raises(DiskError, match="cannot be written"):
        update_config(path, {"lora.rank": 4})
    assert path.read_text() == MINIMAL
    assert list(tmp_path.iterdir()) == [path]
