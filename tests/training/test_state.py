"""States on the disk: which count, what is kept, and that a single wrong bit is noticed."""

import random

import pytest
import torch
from safetensors import safe_open
from tiny import newest_state, tiny_recipe, train

from diffussm.training import Run
from diffussm.training.distributed import ALONE, World
from diffussm.training.state import complete, damage, forget, prune, snapshot, write_state

TENSORS = {"model.a": torch.randn(4, 3), "ema.a": torch.randn(4, 3), "exp_avg.a": torch.randn(4)}


def write(folder, images, rank=0, size=1):
    world = World(rank=rank, size=size)
    copies, places = snapshot(TENSORS, world)
    write_state(folder, copies, places, {"images": images}, world)


def names(folder):
    return sorted(int(path.name) for path in (folder / "state").iterdir())


def test_a_state_counts_once_every_rank_has_written(tmp_path):
    for rank in (2, 0):
        write(tmp_path, 10, rank, 3)
        assert complete(tmp_path) == []
    write(tmp_path, 10, 1, 3)
    (state,) = complete(tmp_path)
    assert damage(state, ALONE) == ""
    (state / "rank-1-of-3.safetensors").rename(state / "rank-1-of-2.safetensors")
    assert complete(tmp_path) == []


def test_the_two_newest_that_count_are_kept(tmp_path):
    write(tmp_path, 10)
    write(tmp_path, 20, 0, 2)  # the other rank was killed
    write(tmp_path, 30)
    prune(tmp_path)
    assert names(tmp_path) == [10, 20, 30]
    write(tmp_path, 40)
    prune(tmp_path)
    assert names(tmp_path) == [30, 40]
    write(tmp_path, 50, 0, 2)
    prune(tmp_path)
    assert names(tmp_path) == [30, 40, 50]  # not counted, not yet old
    assert [int(path.name) for path in complete(tmp_path)] == [40, 30]
    forget(tmp_path, newer_than=30)
    assert names(tmp_path) == [30]


def test_a_snapshot_is_a_copy():
    copies, _ = snapshot(TENSORS, ALONE)
    assert copies.keys() == TENSORS.keys()
    for name, tensor in TENSORS.items():
        assert torch.equal(copies[name], tensor)
        assert copies[name].data_ptr() != tensor.data_ptr()


def test_what_ranks_have_in_common_is_dealt_out_once():
    many = {f"model.{n}": torch.randn(2) for n in range(7)} | {"ema.a": torch.randn(3)}
    shares = [set(snapshot(many, World(rank=rank, size=3))[0]) for rank in range(3)]
    assert set.union(*shares) == many.keys()
    assert sum(map(len, shares)) == len(many)
    assert "ema.a" in shares[0]


@pytest.fixture(scope="module")
def wanted():
    return tiny_recipe(training={"images": 60, "save_every": 20})


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory, wanted):
    folder = tmp_path_factory.mktemp("undisturbed")
    train(wanted, folder)
    return (folder / "model.safetensors").read_bytes()


def flip(path, bit):
    content = bytearray(path.read_bytes())
    content[bit // 8] ^= 1 << bit % 8
    path.write_bytes(content)


def any_bit(path):
    flip(path, random.Random(path.stat().st_size).randrange(8 * path.stat().st_size))


DAMAGES = {
    "truncated": lambda path: path.write_bytes(path.read_bytes()[:-100]),
    "half": lambda path: path.write_bytes(path.read_bytes()[: path.stat().st_size // 2]),
    "empty": lambda path: path.write_bytes(b""),
    "garbage": lambda path: path.write_bytes(bytes(range(256)) * 4),
    "text": lambda path: path.write_text("hello"),
    "first bit of the header": lambda path: flip(path, 8 * 8),
    "a bit of the counts": lambda path: flip(
        path, 8 * path.read_bytes().index(b'images\\": ') + 80
    ),
    "last bit": lambda path: flip(path, 8 * path.stat().st_size - 1),
    "any bit": any_bit,
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_the_state_before_a_damaged_one_is_used_and_that_is_said(
    tmp_path, wanted, undisturbed, damage
):
    train(wanted, tmp_path, until=40)
    (newest,) = newest_state(tmp_path)
    damage(newest)
    run = train(wanted, tmp_path)
    assert run.resumed_at == 20
    assert f"{newest} is damaged" in run.notice
    assert run.notice.endswith("going on from 20 images instead")
    assert "\n" not in run.notice
    assert (tmp_path / "model.safetensors").read_bytes() == undisturbed


def test_any_bit_is_noticed(tmp_path):
    write(tmp_path, 10)
    (state,) = complete(tmp_path)
    (path,) = state.iterdir()
    content = path.read_bytes()
    header = 8 + int.from_bytes(content[:8], "little")
    padding = len(content[:header]) - len(content[:header].rstrip(b" "))
    draw = random.Random(0)
    for _ in range(300):
        bit = draw.randrange(8 * len(content))
        if header - padding <= bit // 8 < header:
            continue  # it says nothing
        flip(path, bit)
        assert damage(state, ALONE), bit
        path.write_bytes(content)
    assert damage(state, ALONE) == ""


def test_what_other_ranks_left_unfinished_is_no_hindrance(tmp_path, wanted, undisturbed):
    train(wanted, tmp_path, until=20)
    write(tmp_path, 40, 0, 2)  # two ranks went on, and were killed while they saved
    run = train(wanted, tmp_path)
    assert (run.resumed_at, run.notice) == (20, "")
    assert [int(path.name) for path in complete(tmp_path)] == [60, 40]
    assert (tmp_path / "model.safetensors").read_bytes() == undisturbed


def test_only_damaged_states_get_a_sentence(tmp_path, wanted):
    train(wanted, tmp_path, until=40)
    for state in (tmp_path / "state").iterdir():
        flip(state / "rank-0-of-1.safetensors", 9000)
    with pytest.raises(ValueError, match=r"is damaged .*, and so is any state before it") as caught:
        Run(wanted, tmp_path, torch.device("cpu"))
    assert "\n" not in str(caught.value)


def test_the_state_of_a_former_version_gets_a_sentence(tmp_path, wanted):
    train(wanted, tmp_path, until=20)
    (tmp_path / "state" / "training.pt").write_bytes(b"")
    with pytest.raises(ValueError, match=r"training\.pt is the state of diffussm 0\.1\.0"):
        Run(wanted, tmp_path, torch.device("cpu"))


def test_another_model_is_named_by_what_differs(tmp_path, wanted):
    train(wanted, tmp_path, until=20)
    other = tiny_recipe(model={"depth": 2}, training={"images": 60, "save_every": 20})
    with pytest.raises(ValueError, match=r"blocks\.1\.\S+ is missing there and") as caught:
        Run(other, tmp_path, torch.device("cpu"), accept_changes=True)
    assert "does not fit the recipe's model" in str(caught.value)


def test_files_are_plain_safetensors_with_places(tmp_path):
    write(tmp_path, 10)
    ((path,),) = ([*state.iterdir()] for state in complete(tmp_path))
    with safe_open(path, framework="pt") as file:
        assert set(file.keys()) == TENSORS.keys()
        assert file.metadata().keys() == {"DCP_SHARDING_INFO"}
    assert path.stat().st_mode & 0o777 == 0o644
