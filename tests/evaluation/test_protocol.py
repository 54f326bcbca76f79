"""Results as files, their hash, and what may be compared."""

import json
from pathlib import Path

import pytest

from diffussm.evaluation.protocol import (
    Result,
    check_comparable,
    metric_differences,
    read_result,
    store,
    write_result,
)

PROTOCOL = {
    "model": "a" * 64,
    "images_seen": 60,
    "samples_file": None,
    "count": 100,
    "steps": 50,
    "guidance_interval": [0.0, 1.0],
    "reference_identity": "b" * 64,
    "reference": "digits",
    "torch": "2.13.0",
}


def result(metrics=None, **changes):
    metrics = {"FD-digits": 2.5, "recall-digits": 0.5} if metrics is None else metrics
    return Result(metrics=metrics, protocol=PROTOCOL | changes, warnings=("few",))


@pytest.mark.parametrize("field", PROTOCOL)
def test_the_hash_covers_what_must_agree_and_nothing_else(field):
    changed = result(**{field: "another"})
    may_differ = {"model", "images_seen", "samples_file", "reference", "torch"}
    assert (changed.hash == result().hash) is (field in may_differ)


def test_the_hash_does_not_depend_on_the_order_of_fields():
    turned = Result(metrics={}, protocol=dict(reversed(PROTOCOL.items())))
    assert turned.hash == result().hash


def test_every_differing_field_is_named_with_both_values():
    theirs = PROTOCOL | {"steps": 25, "reference_identity": "c" * 64, "model": "d" * 64, "eta": 0.0}
    with pytest.raises(ValueError, match=r"cannot be compared with b\.json: ") as refused:
        check_comparable(PROTOCOL, theirs, Path("b.json"))
    said = str(refused.value)
    assert "steps is 50 here and 25 there" in said
    assert f"reference_identity is {'b' * 12}... here and {'c' * 12}... there" in said
    assert "eta is not given here and 0.0 there" in said
    assert "model" not in said
    check_comparable(PROTOCOL, PROTOCOL | {"images_seen": 7, "torch": "3"}, Path("c.json"))


def test_differences_are_ours_minus_theirs_where_both_have_a_number(tmp_path):
    theirs = result({"FD-digits": 4.0, "KID-digits": 1.0}, images_seen=7)
    assert metric_differences(result(), theirs, tmp_path) == {"FD-digits": -1.5}
    with pytest.raises(ValueError, match="has KID, and none of FD-digits, recall-digits"):
        metric_differences(result(), result({"KID": 1.0}), tmp_path)


def test_a_result_survives_its_file(tmp_path):
    write_result(tmp_path / "deep" / "a.json", result())
    assert read_result(tmp_path / "deep" / "a.json") == result()


def test_a_run_keeps_its_results_by_images_and_hash(tmp_path):
    path = store(tmp_path, result())
    assert path == tmp_path / "evaluations" / f"000000000060-{result().hash}.json"
    assert read_result(path) == result()
    assert store(tmp_path, result(images_seen=70)) != path
    assert store(tmp_path, result({"FD-digits": 1.0})) == path


def test_a_result_that_was_changed_is_refused(tmp_path):
    path = tmp_path / "a.json"
    described = result().as_dict()
    described["protocol"]["steps"] = 250
    path.write_text(json.dumps(described))
    with pytest.raises(ValueError, match="was changed, or written by another version"):
        read_result(path)


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "{}", '{"metrics": [], "protocol": {}, "warnings": [], "hash": ""}']
)
def test_what_is_no_result_gets_a_sentence(tmp_path, text):
    path = tmp_path / "a.json"
    path.write_text(text)
    with pytest.raises(ValueError, match="is not a result of `evaluate`"):
        read_result(path)


def test_a_result_that_is_not_there_gets_a_sentence(tmp_path):
    with pytest.raises(ValueError, match="there is no result"):
        read_result(tmp_path / "a.json")
    with pytest.raises(ValueError, match="is not a result"):
        read_result(tmp_path)
