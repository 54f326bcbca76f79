"""One run on 1, 2 and 4 ranks: the same images, the same losses, and going on on any of them."""

import pytest
import torch
from ranks import do, recipe_of
from safetensors.torch import load_file
from tiny import metric_lines, newest_state, train

MODEL = "model.safetensors"
DDP, FSDP = {}, {"parallel": "fsdp"}
PIECES, ROUGH = {"accumulate": 3}, {"precision": "bfloat16"}
WATCHED = {"validate_every": 30, "preview_every": 30}
BEGUN = {"until": 20}
ALONE = {"alone": True}

# The stages of each run: how the recipe's [training] differs, and whether one process does it.
RUNS = {
    "ddp": [DDP],
    "ddp-stopped": [DDP | BEGUN, DDP],
    "fsdp": [FSDP],
    "fsdp-stopped": [FSDP | BEGUN, FSDP],
    "alone-then-ddp": [ALONE | BEGUN, DDP],
    "alone-then-fsdp": [ALONE | BEGUN, FSDP],
    "ddp-then-alone": [DDP | BEGUN, ALONE],
    "fsdp-then-alone": [FSDP | BEGUN, ALONE],
    "ddp-then-fsdp": [DDP | BEGUN, FSDP],
    "fsdp-then-ddp": [FSDP | BEGUN, DDP],
    "pieces": [DDP | PIECES],
    "pieces-fsdp": [FSDP | PIECES],
    "checkpointed": [DDP | {"checkpoint_blocks": True}],
    "checkpointed-fsdp": [FSDP | {"checkpoint_blocks": True}],
    "compiled": [DDP | {"compile": True}],
    "compiled-fsdp": [FSDP | {"compile": True, "checkpoint_blocks": True}],
    "watched": [DDP | WATCHED],
    "watched-fsdp": [FSDP | WATCHED],
    "rough": [DDP | ROUGH],
    "rough-fsdp": [FSDP | ROUGH],
}
QUICK = {
    2: [
        *("ddp", "ddp-stopped", "fsdp", "fsdp-stopped", "alone-then-fsdp", "fsdp-then-alone"),
        *("ddp-then-fsdp", "pieces", "checkpointed-fsdp", "watched-fsdp", "rough-fsdp"),
    ],
    4: ["ddp", "ddp-stopped", "alone-then-fsdp"],
}


def tables(stage):
    training = {key: value for key, value in stage.items() if key not in ("until", "alone")}
    return {"training": training, "data": {"hold_out": 23 if "validate_every" in stage else 0}}


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """What one process does, by what the runs' names begin with."""
    folder = tmp_path_factory.mktemp("alone")
    for name, stage in (("run", {}), ("watched", WATCHED), ("rough", ROUGH)):
        train(recipe_of(**tables(stage)), folder / name)
    return folder


SETS = [pytest.param((ranks, names), id=f"{ranks} ranks") for ranks, names in QUICK.items()]
EVERY = {2: list(RUNS), 4: [name for name in RUNS if not name.startswith("compiled")]}
SETS += [
    pytest.param((ranks, names), id=f"{ranks} ranks, all", marks=pytest.mark.slow)
    for ranks, names in EVERY.items()
]


@pytest.fixture(scope="module", params=SETS)
def many(request, tmp_path_factory):
    """Folders of some of the runs, done by several ranks in one go."""
    ranks, names = request.param
    root = tmp_path_factory.mktemp(f"on-{ranks}")
    stages = [(root / name, number, s) for name in names for number, s in enumerate(RUNS[name])]
    jobs = []
    for folder, _, stage in stages:
        if "alone" not in stage:
            job = {"folder": str(folder), "tables": tables(stage), "until": stage.get("until")}
            jobs.append(job)
    for last in (0, 1):
        for folder, number, stage in stages:
            if "alone" in stage and number == last:
                train(recipe_of(**tables(stage)), folder, until=stage.get("until"))
        if last == 0:
            do(ranks, jobs)
    return root


def assert_same_bytes(folder, reference):
    assert (folder / MODEL).read_bytes() == (reference / MODEL).read_bytes()
    states = [[path.read_bytes() for path in newest_state(each)] for each in (folder, reference)]
    assert states[0] == states[1]
    assert metric_lines(folder) == metric_lines(reference)


def flat(line):
    """A record whose every value is one number."""
    quarters = {f"quarter {n}": value or 0.0 for n, value in enumerate(line["quarters"])}
    return {key: value for key, value in line.items() if key != "quarters"} | quarters


def assert_same_to_rounding(folder, reference, rel):
    ours, theirs = metric_lines(folder), metric_lines(reference)
    assert len(ours) == len(theirs)
    for line, expected in zip(ours, theirs, strict=True):
        assert flat(line) == pytest.approx(flat(expected), rel=rel), folder.name
    torch.testing.assert_close(
        load_file(folder / MODEL), load_file(reference / MODEL), rtol=rel, atol=rel
    )


def test_many_do_what_one_does(many, alone):
    for folder in many.iterdir():
        kind = folder.name.partition("-")[0]
        reference = alone / kind if (alone / kind).exists() else alone / "run"
        assert_same_to_rounding(folder, reference, rel=0.1 if kind == "rough" else 1e-4)


@pytest.mark.parametrize("parallel", ["ddp", "fsdp"])
def test_stopped_and_resumed_is_the_same_to_the_bit(many, parallel):
    if (many / parallel).exists():
        assert_same_bytes(many / f"{parallel}-stopped", many / parallel)
        if (many / f"checkpointed-{parallel}").exists():
            assert_same_bytes(many / f"checkpointed-{parallel}", many / parallel)


def test_each_rank_keeps_its_part_of_the_state(many, alone):
    whole = sum(path.stat().st_size for path in newest_state(alone / "run"))
    (names,) = (load_file(path).keys() for path in newest_state(alone / "run"))
    files = newest_state(many / "ddp")
    kept = [load_file(path).keys() for path in files]
    assert sum(map(len, kept)) == len(names)  # nothing twice
    assert set().union(*kept) == names
    files += newest_state(many / "alone-then-fsdp")
    assert all(path.stat().st_size < 0.8 * whole for path in files)


def test_older_states_are_removed(many):
    for folder in many.iterdir():
        states = sorted(path.name for path in (folder / "state").iterdir())
        assert states == ["000000000040", "000000000042"]


def test_validation_and_previews(many):
    for folder in many.glob("watched*"):
        lines = metric_lines(folder)
        assert [line["images"] for line in lines if "validation" in line] == [30, 42]
        pictures = sorted(path.name for path in (folder / "previews").iterdir())
        assert pictures == ["000000000030.png", "000000000042.png"]


def test_bfloat16_is_really_used(many, alone):
    exact = [line["loss"] for line in metric_lines(alone / "run")]
    for folder in many.glob("rough*"):
        assert [line["loss"] for line in metric_lines(folder)] != exact
