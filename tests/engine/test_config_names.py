"""What settings are called: in one way, wherever they are named."""

from __future__ import annotations

from engine.config_names import dotted, flat


def test_names_are_dotted_and_tables_of_an_array_counted_from_one() -> None:
    table = {"name": "cat", "dataset": {"folders": [{"path": "a"}, {"path": "b"}], "tags": ["x", "y"], "none": []}}
    assert flat(table) == {
        "name": "cat", "dataset.folders[1].path": "a", "dataset.folders[2].path": "b", "dataset.tags": ["x", "y"],
        "dataset.none": [],
    }  # fmt: skip
    assert flat(table, {"dataset.folders"})["dataset.folders"] == [{"path": "a"}, {"path": "b"}]
    assert flat({"lora": {"ranks": {}}}) == {}


def test_a_problem_and_a_difference_name_a_setting_alike() -> None:
    assert [dotted(("dataset", "folders", 1, "path"))] == list(flat({"dataset": {"folders": [{}, {"path": 1}]}}))
    assert dotted(("a\x1b[2J", "b")) == "a\\x1b[2J.b"
