"""The curves of a run, from the lines that it wrote."""

import json

import pytest

from diffussm.analysis.records import Record, read_record
from diffussm.evaluation.protocol import Result, store

LINES = [
    {"images": 10, "simple": 1.0, "skipped": False},
    {"images": 20, "simple": 0.5, "skipped": False, "validation": 0.6},
    {"images": 30, "simple": 9.0, "skipped": True, "evaluation": {"FD-digits": 4}},
]


def written(folder, lines, end=""):
    text = "".join(json.dumps(line) + "\n" for line in lines) + end
    (folder / "metrics.jsonl").write_text(text)
    return folder


def test_a_run_is_read(tmp_path):
    hashes = []
    for images, value, steps in ((40, 2.5, 50), (5, 8.0, 50), (40, 7.0, 20)):
        metrics, protocol = {"FD-digits": value, "FID": 3.0}, {"images_seen": images}
        result = Result(metrics=metrics, protocol=protocol | {"steps": steps})
        store(tmp_path, result)
        hashes.append(result.hash)
    one, _, other = hashes
    record = read_record(written(tmp_path, LINES, end='{"images": 40, "simp'))  # a kill cut it
    assert record == Record(
        loss={10: 1.0, 20: 0.5},
        validation={20: 0.6},
        evaluations={
            "FD-digits": {"": {30: 4.0}, one: {5: 8.0, 40: 2.5}, other: {40: 7.0}},
            "FID": {one: {5: 3.0, 40: 3.0}, other: {40: 3.0}},
        },
        protocols={
            one: {"images_seen": 40, "steps": 50},
            other: {"images_seen": 40, "steps": 20},
        },
    )


def test_runs_without_numbers(tmp_path):
    with pytest.raises(ValueError, match=r"has no metrics.jsonl; give the folder of a run"):
        read_record(tmp_path)
    with pytest.raises(ValueError, match="has not done a step yet"):
        read_record(written(tmp_path, []))


@pytest.mark.parametrize("line", ['{"images": 3', "[1]", '{"simple": 1.0}', "nan", '"text"'])
def test_damaged_lines(tmp_path, line):
    written(tmp_path, LINES, end=line + "\n")
    with pytest.raises(ValueError, match=r"line 4 of .*metrics.jsonl is damaged"):
        read_record(tmp_path)


@pytest.mark.parametrize("text", ["", "[]", '{"hash": 3}', '{"protocol": {"images_seen": 3}}'])
def test_damaged_evaluations(tmp_path, text):
    (tmp_path / "evaluations").mkdir()
    (tmp_path / "evaluations" / "one.json").write_text(text)
    with pytest.raises(ValueError, match=r"one.json is damaged"):
        read_record(written(tmp_path, LINES))
