"""The setup form's meaning: the configuration it makes, its problems, steps, folders; no screen."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pocket import DEMO, FILES, pictures, pocket_config

from engine.batches import Order
from engine.config import MaskConfig, RunConfig
from engine.config_file import parse_config
from engine.config_writer import table_text
from engine.dataset.decoder import Decoder
from engine.dataset.scan import collect
from engine.errors import DatasetError
from profiles.presets import FIRST, preset
from profiles.recipes import FOLDER, own_folder
from profiles.starters import demo_config
from tui.setup.fields import FIELDS, MASKS, NUMBERS, OWN, SLOTS, choices_of, schema_default, shown, without_meaning
from tui.setup.folders import guess_folder, lay_out, layout_for
from tui.setup.form import SetupForm, free_name
from tui.setup.models import judge
from tui.setup.prompts import fill_in, kinds_of, written
from tui.setup.steps import count_steps
from tui.setup.tables import lookup

CLASS = {"path": DEMO / "regularization", "regularization": True}


def filled(work: Path, /, **values: str) -> SetupForm:
    """A form with a dataset folder and trigger word typed in."""
    form = SetupForm(work, {})
    form.values |= {"folder": "image", "trigger": "zorple"} | values
    return form


def own_files(form: SetupForm) -> SetupForm:
    """The form with the pocket model's files typed in as if they were the user's own."""
    form.choose_base("files")
    names = {"transformer": "flux", "autoencoder": "ae", "clip_l": "clip", "t5": "t5"}
    form.values |= {slot: str(FILES / f"{name}-pocket.safetensors") for slot, name in names.items()}
    return form


def test_a_new_form_is_complete_but_for_the_dataset(tmp_path: Path) -> None:
    form = SetupForm(tmp_path / "My cat!", {})
    assert form.values["name"] == "My-cat"
    assert form.check().problems == {"folder": "is empty"}


@pytest.mark.parametrize("name", [*FIRST, "pocket"])
def test_every_preset_makes_a_valid_configuration(tmp_path: Path, name: str) -> None:
    form = filled(tmp_path) if name == "pocket" else own_files(filled(tmp_path))
    form.choose_preset(name)
    checked = form.check()
    assert not checked.problems and not checked.others
    assert parse_config(checked.text, form.path) == checked.config
    assert preset(name).about and preset(name).title


def test_the_pocket_preset_trains_as_the_demonstration_does(tmp_path: Path) -> None:
    form = filled(tmp_path, folder=str(DEMO / "train"), class_folder=str(DEMO / "regularization"), repeats="2")
    form.values |= {"name": "demo", "runs_dir": str(tmp_path)}
    config, demo = form.check().config, demo_config(tmp_path)
    assert config is not None
    # Its held-out pictures are a folder of the package's own.
    same = config.model_copy(update={"seed": demo.seed, "cache_dir": demo.cache_dir, "validation": demo.validation})
    assert same == demo


def test_the_text_is_the_configuration(tmp_path: Path) -> None:
    form = own_files(filled(tmp_path, epochs="7", rate="2.5e-4", alpha="8"))
    form.values |= {"epochs": "7", "rate": "2.5e-4", "alpha": "8", "prompts": "{trigger} on a hill\n\n a dog \n"}
    checked = form.check()
    config = parse_config(checked.text, form.path)
    assert config == checked.config
    assert (config.training.epochs, config.optimizer.learning_rate, config.lora.alpha) == (7, 2.5e-4, 8.0)
    assert [(entry.prompt, entry.seed) for entry in config.sampling.prompts] == [
        ("zorple on a hill", 1),
        ("a dog", 2),
    ]
    assert config.dataset.folders[0].path == tmp_path / "image"


def test_without_a_trigger_word_prompts_do_without(tmp_path: Path) -> None:
    form = filled(tmp_path, trigger="")
    form.values["prompts"] = "{trigger}, a portrait\na {trigger} at sea\n{trigger}"
    checked = form.check()
    assert checked.config is not None
    assert [entry.prompt for entry in checked.config.sampling.prompts] == ["a portrait", "a at sea", "{trigger}"]


@pytest.mark.parametrize(
    ("field", "text", "told"),
    [
        ("epochs", "many", "valid integer"),
        ("epochs", "3.5", "integer"),
        ("rank", "0", "greater than or equal to 1"),
        ("rate", "-1", "greater than 0"),
        ("rate", "nan", "finite"),
        ("name", "", "is empty"),
        ("folder", "~/cats", "not expanded"),
        ("folder", "https://host/x", "address"),
        ("class_folder", "~/dogs", "not expanded"),
        ("repeats", "-2", "greater than or equal to 0"),
        ("runs_dir", "~", "not expanded"),
        ("resolution", "9" * 17, "less than or equal"),
    ],
    ids=["word", "part", "zero", "negative", "nan", "empty", "home", "address", "class", "repeats", "runs", "huge"],
)  # fmt: skip
def test_what_is_wrong_is_told_at_its_field(tmp_path: Path, field: str, text: str, told: str) -> None:
    form = filled(tmp_path, **{field: text})
    checked = form.check()
    assert list(checked.problems) == [field]
    assert told in checked.problems[field]
    assert checked.config is None
    assert not checked.others


def test_text_that_is_no_utf8_is_a_problem_not_a_crash(tmp_path: Path) -> None:
    checked = filled(tmp_path, folder="cats\udcff").check()
    assert checked.config is None
    assert checked.others


def test_a_duplicated_run_keeps_what_the_form_has_no_field_for(tmp_path: Path) -> None:
    config = pocket_config(
        tmp_path,
        seed=123,
        lora={"rank": 4, "exclude": ["img_mlp"], "ranks": {"single": 2}},
        dataset={"captions": {"trigger_word": "zorple", "dropout": 0.1}, "flip": True},
        sampling={"prompts": [{"prompt": "a zorple", "seed": 9, "width": 32}]},
    )
    form = SetupForm(tmp_path, {})
    form.take(config, "again")
    checked = form.check()
    assert checked.config == config.model_copy(update={"name": "again", "model": checked.config.model})
    assert form.values["folder"] == "data"
    assert form.values["preset"] == OWN
    again = SetupForm(tmp_path, dict(form.values))
    assert again.check().config == checked.config


def test_the_prompts_of_a_duplicated_run_follow_another_trigger_word(tmp_path: Path) -> None:
    prompts = [{"prompt": "a zorple, zorples"}, {"prompt": "a hill"}]
    captions = {"captions": {"trigger_word": "zorple"}}
    form = SetupForm(tmp_path, {})
    form.take(pocket_config(tmp_path, dataset=captions, sampling={"prompts": prompts}), "again")
    assert form.values["prompts"].splitlines() == ["a {trigger}, zorples", "a hill"]
    form.values["trigger"] = "glorb"
    config = form.check().config
    assert config is not None
    assert [entry.prompt for entry in config.sampling.prompts] == ["a glorb, zorples", "a hill"]


def test_a_preset_after_duplicating_takes_the_other_settings_place(tmp_path: Path) -> None:
    form = SetupForm(tmp_path, {})
    form.take(pocket_config(tmp_path, seed=5, lora={"exclude": ["img_mlp"]}), "again")
    form.choose_preset("pocket")
    config = form.check().config
    assert config is not None
    assert (config.seed, config.lora.exclude, config.lora.rank) == (5, (), 8)
    form.choose_preset(OWN)
    assert form.values["rank"] == "4"


def test_the_form_goes_on_where_the_same_run_was_taken_before(tmp_path: Path) -> None:
    config = pocket_config(tmp_path)
    form = SetupForm(tmp_path, {})
    form.take(config, "again")
    form.values["epochs"] = "77"
    back = SetupForm(tmp_path, form.values)
    back.take(config, "again-2")
    assert (back.values["epochs"], back.values["name"]) == ("77", "again")
    back.take(pocket_config(tmp_path, seed=3), "other")
    assert back.values["name"] == "other"


def test_advice_is_taken_and_marked(tmp_path: Path) -> None:
    form = SetupForm(tmp_path, {})
    form.take(pocket_config(tmp_path), "again")
    form.advise({"lora.rank": 2, "training.gradient_checkpointing": False, "optimizer.learning_rate": 5e-5})
    assert form.changed == {"rank", "rate"}
    assert form.notes == ("training.gradient_checkpointing = false",)
    config = form.check().config
    assert config is not None
    assert (config.lora.rank, config.optimizer.learning_rate) == (2, 5e-5)
    assert config.training.gradient_checkpointing == "none"


@pytest.mark.parametrize(
    "values",
    [{"base": "pocket"}, {"@base": "[", "preset": OWN}, {name: "x" for name in FIELDS}],
    ids=["few", "damaged", "unknown"],
)
def test_a_sessions_values_of_another_kind_are_begun_anew(tmp_path: Path, values: dict[str, str]) -> None:
    form = SetupForm(tmp_path / "cat", values)
    assert form.values["name"] == "cat"
    assert form.check().problems == {"folder": "is empty"}


def test_masks_are_settings_of_the_form_while_they_mean_something(tmp_path: Path) -> None:
    form = filled(tmp_path)
    assert {"mask_folder", "mask_outside"} <= without_meaning(form.values)
    form.values["mask_outside"] = "much"
    assert not form.check().problems and "dataset.masks" not in form.check().text
    form.values |= {"masks": "folder", "mask_folder": "cut out", "mask_outside": "0.25"}
    config = form.check().config
    assert config is not None and not {"mask_folder", "mask_outside"} & without_meaning(form.values)
    assert config.dataset.masks == MaskConfig(source="folder", folder="cut out", outside=0.25)
    form.choose_preset("pocket")
    assert form.check().config == config, "a preset that says nothing of masks leaves them"
    form.values |= {"masks": "alpha", "mask_outside": "2"}
    assert list(form.check().problems) == ["mask_outside"] and "mask_folder" in without_meaning(form.values)


def test_masks_of_another_run_are_taken_and_a_session_without_their_fields_is_kept(tmp_path: Path) -> None:
    config = pocket_config(tmp_path, dataset={"masks": {"source": "folder", "outside": 0.5}})
    form = SetupForm(tmp_path, {})
    form.take(config, "again")
    assert [form.values[name] for name in MASKS] == ["folder", "masks", "0.5"]
    before = {name: value for name, value in form.values.items() if name not in MASKS} | {"epochs": "77"}
    back = SetupForm(tmp_path, before)
    assert back.values["epochs"] == "77" and [back.values[name] for name in MASKS] == ["folder", "masks", "0.5"]


def test_fields_are_settings_that_exist() -> None:
    for field in FIELDS.values():
        if field.key and not field.key.startswith("model."):
            schema_default(field.key)
    assert set(NUMBERS) <= set(FIELDS)
    assert set(SLOTS) <= set(FIELDS)
    assert all(field.help for field in FIELDS.values())


def test_numbers_are_shown_as_people_write_them() -> None:
    values = (1e-4, 2.5e-5, 0.004, 1.0, 12, None, 0.123456789012)
    texts = [shown(value) for value in values]
    assert texts == ["1e-4", "2.5e-5", "0.004", "1", "12", "", "0.123456789012"]
    assert [float(text) for text in texts if text] == [value for value in values if value is not None]


def test_a_table_of_any_kind_survives_its_text() -> None:
    table: dict[str, Any] = {
        "name": 'quotes " and \\ and é and \x7f', "list": ["a", "b"], "odd key": 1, "yes": True, "none": [],
        "inner": {"deep": {"x": 1.5}, "rows": [{"a": 1, "b": {"c": "d"}}, {"a": 2}]},
    }  # fmt: skip
    import tomllib

    assert tomllib.loads(table_text(table, "a title\n\nof lines")) == table


def steps_both_ways(config: RunConfig) -> tuple[int, int, bool]:
    """Steps by the form's count and by the trainer's order."""
    with Decoder() as decoder:
        samples = collect(config.dataset, decoder).samples
    counted = count_steps(samples, config)
    return counted.total, Order(samples, config).total_steps, counted.exact


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"training": {"batch_size": 3, "accumulation": 1}},
        {"training": {"batch_size": 2, "accumulation": 3, "epochs": 5}},
        {"training": {"epochs": 0, "steps": 7}},
        {"training": {"epochs": 9, "steps": 7, "accumulation": 1}},
        {"training": {"epochs": 2, "steps": 500}},
        {"dataset": {"folders": [{"path": DEMO / "train", "repeats": 3}, {"path": DEMO / "held_out"}]}},
        {"dataset": {"folders": [{"path": DEMO / "train"}, CLASS]}},
        {"dataset": {"folders": [{"path": DEMO / "train", "repeats": 2}, {**CLASS, "path": DEMO / "held_out"}]}},
    ],
    ids=["plain", "batch", "accumulation", "steps", "both-steps", "both-epochs", "folders", "class", "few-of-class"],
)  # fmt: skip
def test_steps_are_counted_as_the_trainer_makes_them(tmp_path: Path, changes: dict[str, Any]) -> None:
    counted, made, exact = steps_both_ways(pocket_config(tmp_path, **changes))
    assert exact
    assert counted == made


def test_the_calculation_is_told(tmp_path: Path) -> None:
    form = filled(tmp_path, folder=str(DEMO / "train"), repeats="2")
    config = form.check().config
    assert config is not None
    with Decoder() as decoder:
        steps = count_steps(collect(config.dataset, decoder).samples, config)
    assert steps.text() == "16 pictures x 2 repeats x 24 epochs / batch 8 = 96 steps, 4 an epoch"


def test_folders_are_laid_out_beside_what_is_there(tmp_path: Path) -> None:
    (tmp_path / "image").mkdir()
    (tmp_path / "image" / "00.txt").write_text("mine")
    layout = lay_out(tmp_path / "image", demo=True)
    assert layout == layout_for(tmp_path)
    assert (layout.image / "00.txt").read_text() == "mine"
    assert len(list(layout.image.glob("*.png"))) == 16
    assert len(list(layout.classes.glob("*.png"))) == len(list((DEMO / "regularization").glob("*.png")))
    assert layout.model.is_dir() and "host.log" in (layout.log / "README.txt").read_text()
    (layout.log / "README.txt").write_text("my notes")
    lay_out(tmp_path)
    assert (layout.log / "README.txt").read_text() == "my notes"


def test_a_file_in_the_way_of_a_folder_is_told(tmp_path: Path) -> None:
    (tmp_path / "model").write_text("x")
    with pytest.raises(DatasetError, match="cannot be made"):
        lay_out(tmp_path)


def test_the_folder_with_pictures_is_guessed(tmp_path: Path) -> None:
    assert guess_folder(tmp_path) == "image"
    pictures(tmp_path, 1)
    assert guess_folder(tmp_path) == "."
    (tmp_path / "pictures").mkdir()
    assert guess_folder(tmp_path) == "pictures"


def test_a_slot_says_what_its_file_is_or_what_is_missing(tmp_path: Path) -> None:
    assert judge("autoencoder", "", tmp_path).text.startswith("Missing: ae.safetensors")
    (tmp_path / "flux.safetensors").write_bytes((FILES / "flux-pocket.safetensors").read_bytes())
    assert judge("transformer", "flux.safetensors", tmp_path).good
    wrong = judge("t5", "flux.safetensors", tmp_path)
    assert not wrong.good and "transformer" in wrong.text
    assert not judge("t5", "nowhere.safetensors", tmp_path).good


def test_lookup_goes_through_tables_only() -> None:
    assert lookup({"a": {"b": 1}}, "a.b") == 1
    assert lookup({"a": [1]}, "a.b", "none") == "none"


def test_a_free_name_counts_on(tmp_path: Path) -> None:
    assert free_name(tmp_path, "my cat") == "my-cat"
    for taken, found in (("my-cat", "my-cat-2"), ("my-cat-2", "my-cat-3")):
        (tmp_path / f"{taken}.toml").touch()
        assert free_name(tmp_path, taken) == free_name(tmp_path, "my cat") == found
    assert free_name(tmp_path, "sdxl-10") == "sdxl-10"
    (tmp_path / "sdxl-10.toml").touch()
    assert free_name(tmp_path, "sdxl-10") == "sdxl-10-2"


def test_recipes_of_the_users_own_are_presets_too(tmp_path: Path) -> None:
    folder = own_folder()
    folder.mkdir(parents=True)
    text = (FOLDER / "style.toml").read_text(encoding="utf-8")
    title = next(line for line in text.splitlines() if line.startswith("title"))
    (folder / "ink.toml").write_text(text.replace(title, 'title = "ink\\u001b[2J"'), encoding="utf-8")
    (folder / "bad.toml").write_text("title = 3\n", encoding="utf-8")
    form = own_files(filled(tmp_path))
    offered = dict(choices_of(FIELDS["preset"]))
    assert list(offered)[:4] == list(FIRST) and list(offered)[-2:] == ["ink", "pocket"]
    assert "\x1b" not in offered["ink"] and offered["ink"].startswith("ink")
    assert len(form.skipped) == 1 and "bad.toml" in str(form.skipped[0])
    form.choose_preset("ink")
    assert not form.check().problems and form.values["rank"] == str(preset("style").table["lora"]["rank"])
    (folder / "ink.toml").unlink()
    assert SetupForm(tmp_path, form.values).values["preset"] == "pocket", "what is gone cannot be gone on with"


def test_prompts_written_from_captions_keep_their_kinds(tmp_path: Path) -> None:
    pictures(tmp_path / "image", 5)
    form = filled(tmp_path, folder=str(tmp_path / "image"))
    config = form.check().config
    assert config is not None
    with Decoder() as decoder:
        scan = collect(config.dataset, decoder)
    fill_in(form.values, written(scan, config))
    lines = form.values["prompts"].splitlines()
    assert len(lines) == 6 and sum("{trigger}" in line for line in lines) == 5 and "zorple" not in lines[0]
    form.values |= {"trigger": "glorb", "prompts": "\n".join([*lines[1:], "mine"])}
    checked = form.check().config
    assert checked is not None
    kinds = [(one.kind, one.seed) for one in checked.sampling.prompts]
    assert [kind for kind, _ in kinds] == ["caption", "scene", "scene", "off-domain", "no trigger", ""]
    # The one without the trigger word is the preset's own, seed and all.
    assert [seed for _, seed in kinds] == [1, 2, 3, 4, 1, 6]
    assert all("glorb" in one.prompt for one in checked.sampling.prompts[:4])
    assert kinds_of({"@kinds": "[1"}) == kinds_of({"@kinds": '{"a": "other", "b": [1]}'}) == {}


def test_strengths_are_typed_as_a_list(tmp_path: Path) -> None:
    form = filled(tmp_path, strengths="0.6, 0.8,1")
    config = form.check().config
    assert config is not None and config.sampling.strengths == (0.6, 0.8, 1.0)
    assert "strengths = [0.6, 0.8, 1]" in form.check().text
    form.values["strengths"] = "0.6, much"
    assert "strengths" in form.check().problems
    form.values["strengths"] = ""
    again = form.check().config
    assert again is not None and again.sampling.strengths == (1.0,)
