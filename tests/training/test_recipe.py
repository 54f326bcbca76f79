"""Recipes: what is filled in, what is refused and how, and TOML there and back."""

import re
import tomllib
from dataclasses import asdict

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny import SETTINGS, tiny_recipe

from diffussm.analysis.flops import cost
from diffussm.diffusion import Guidance
from diffussm.models import build
from diffussm.training import find_recipe, read_tables, recipe
from diffussm.training.recipe import TABLES, differences, recipes_folder, stand_in, to_toml

BUILT_IN = sorted(path.stem for path in recipes_folder().glob("*.toml"))


@pytest.mark.parametrize("name", BUILT_IN)
def test_built_in_recipes_are_right(name):
    tables = read_tables(find_recipe(name))
    wanted = recipe(tables, None if name.startswith("digits") else stand_in(tables))
    assert wanted.training.images > 0


def test_recipes_of_the_paper():
    """Width, blocks, images and size as the paper has them."""
    found = {}
    for name in ("imagenet256", "imagenet512", "imagenet256-dit", "lsun-church"):
        tables = read_tables(find_recipe(name))
        found[name] = recipe(tables, stand_in(tables))
    xl = found["imagenet256"]
    assert (xl.model.d_model, xl.model.depth, xl.model.size) == (1152, 29, (32, 32))
    assert (xl.training.images, xl.training.batch_size, xl.training.lr) == (660e6, 256, 1e-4)
    assert (found["imagenet512"].training.images, found["imagenet512"].model.size[0]) == (302e6, 64)
    assert found["imagenet512"].training.lr == xl.training.lr  # from two bases above
    assert found["imagenet256-dit"].model_name == "DiT-XL/2"
    assert found["lsun-church"].model.num_classes == 0


def test_the_data_decide_what_the_recipe_leaves_open():
    config = tiny_recipe().model
    assert (config.size, config.in_channels, config.num_classes) == ((8, 8), 1, 10)


def test_both_sides_agree_on_learned_variance():
    assert not tiny_recipe(model={"learned_variance": False}).diffusion.learned_variance
    with pytest.raises(ValueError, match="learned_variance differs"):
        tiny_recipe(model={"learned_variance": False}, diffusion={"learned_variance": True})


MISTAKES = [
    ("trainin", "images", 3, "unknown table 'trainin'; did you mean 'training'"),
    ("training", "batchsize", 3, "did you mean 'training.batch_size'"),
    ("model", "dmodel", 3, "did you mean 'model.d_model'"),
    ("sampling", "step", 3, "did you mean 'sampling.steps'"),
    ("guidance", "scales", 3, "did you mean 'guidance.scale'"),
    ("diffusion", "learned_varianc", True, "did you mean 'diffusion.learned_variance'"),
    ("data", "name", "digit", "unknown data set 'digit'; did you mean 'digits'"),
    ("model", "name", "DifuSSM-S", "did you mean 'DiffuSSM-S'"),
    ("model", "name", 5, "set model.name"),
    ("model", "matrices", "total", "did you mean 'totals'"),
    ("model", "ssm", "s5", "did you mean 's4'"),
    ("diffusion", "schedule", "liner", "did you mean 'linear'"),
    ("diffusion", "prediction", "epsilon", "unknown prediction type 'epsilon'"),
    ("training", "weighting", "minsnr", "did you mean 'min-snr'"),
    ("training", "precision", "float16", "did you mean 'bfloat16'"),
    ("training", "lr_schedule", "cosin", "did you mean 'cosine'"),
    ("sampling", "sampler", "dpm", "unknown sampler 'dpm'"),
    ("training", "images", "many", "training.images must be a whole number, not 'many'"),
    ("training", "images", 0, "training.images must be at least 1, not 0"),
    ("training", "images", -3, "at least 1, not -3"),
    ("training", "batch_size", 2.5, "must be a whole number, not 2.5"),
    ("training", "batch_size", True, "must be a whole number, not True"),
    ("training", "batch_size", 0, "at least 1, not 0"),
    ("training", "lr", "fast", "training.lr must be a number, not 'fast'"),
    ("training", "lr", 0, "must be above 0"),
    ("training", "gradient_clip", -1.0, "must be above 0"),
    ("training", "ema_decay", 1, "lie in [0, 1), not 1"),
    ("training", "label_dropout", 1.5, "lie in [0, 1], not 1.5"),
    ("training", "seed", -1, "at least 0, not -1"),
    ("training", "save_every", 0, "at least 1, not 0"),
    ("training", "preview_every", -1, "at least 0, not -1"),
    ("training", "validate_every", -1, "at least 0, not -1"),
    ("training", "log_every", 0, "at least 1, not 0"),
    ("training", "accumulate", 0, "at least 1, not 0"),
    ("training", "parallel", "dpp", "did you mean 'ddp'"),
    ("training", "compile", 1, "must be true or false, not 1"),
    ("model", "bidirectional", "yes", "must be true or false, not 'yes'"),
    ("model", "input_size", [8], "must be a whole number or a list"),
    ("model", "input_size", 16, "the model takes 1 x 16 x 16, the data are 1 x 8 x 8"),
    ("model", "in_channels", 3, "the model takes 3 x 8 x 8"),
    ("model", "num_classes", 7, "the data have 10"),
    ("model", "hourglass_ratio", 3, "width 8 must be a positive multiple of 3"),
    ("model", "patch_size", 3, "must be a positive multiple of patch_size 3"),
    ("model", "d_model", 10, "divisible by 4"),
    ("model", "depth", 0, "depth must be at least 1"),
    ("sampling", "steps", 0, "at least 1 step, not 0"),
    ("sampling", "steps", 1001, "the process has only 1000"),
    ("guidance", "scale", -1, "at least 0, not -1"),
    ("guidance", "channels", 2, "images have only 1"),
    ("guidance", "interval", [0.5, 0.1], "low <= high"),
]


@pytest.mark.parametrize(("table", "key", "value", "sentence"), MISTAKES, ids=str)
def test_a_mistake_gets_a_sentence(table, key, value, sentence):
    with pytest.raises(ValueError, match=re.escape(sentence)) as caught:
        tiny_recipe(**{table: {key: value}})
    assert "\n" not in str(caught.value)


def test_what_must_be_said():
    with pytest.raises(ValueError, match=r"set training\.images"):
        recipe({"model": {"name": "DiffuSSM"}})
    with pytest.raises(ValueError, match=r"set model\.name"):
        recipe({"training": {"images": 1}})
    with pytest.raises(ValueError, match="training is a table"):
        recipe({"training": 5})


def test_guidance_needs_classes_and_dropped_labels():
    with pytest.raises(ValueError, match="unconditional model has no guidance"):
        tiny_recipe(model={"num_classes": 0}, guidance={"scale": 1.5})
    with pytest.raises(ValueError, match=r"training\.label_dropout above 0"):
        tiny_recipe(training={"label_dropout": 0.0}, guidance={"scale": 1.5})
    assert tiny_recipe(model={"num_classes": 0}).guidance == Guidance()


def test_unknown_recipes_get_the_nearest_name(tmp_path):
    with pytest.raises(ValueError, match="unknown recipe 'digit'; did you mean 'digits'"):
        find_recipe("digit")
    with pytest.raises(ValueError, match=r"no recipe file .*absent\.toml"):
        find_recipe(str(tmp_path / "absent.toml"))
    (tmp_path / "mine.toml").touch()
    assert find_recipe(str(tmp_path / "mine.toml")) == tmp_path / "mine.toml"


def test_settings_lie_over_the_file(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text('[model]\nname = "DiffuSSM"\ndepth = 3\n')
    given_settings = {
        "model.depth=5": ("model", "depth", 5),
        "training.lr=1e-3": ("training", "lr", 1e-3),
        "training.images = 1_000": ("training", "images", 1000),
        "model.bidirectional=false": ("model", "bidirectional", False),
        "model.name=DiffuSSM-S": ("model", "name", "DiffuSSM-S"),
        'model.ssm="s4d"': ("model", "ssm", "s4d"),
        "sampling.sampler= dpm++ ": ("sampling", "sampler", "dpm++"),
        "model.input_size=[8, 16]": ("model", "input_size", [8, 16]),
    }
    tables = read_tables(path, given_settings)
    for table, key, value in given_settings.values():
        assert tables[table][key] == value
        assert type(tables[table][key]) is type(value)
    assert read_tables(path) == {"model": {"name": "DiffuSSM", "depth": 3}}


@pytest.mark.parametrize(
    "setting", ["training.lr", "lr=3", "=3", ".lr=3", "training.=3", "", "a b"]
)
def test_a_setting_has_a_form(setting):
    with pytest.raises(ValueError, match="a setting looks like training"):
        read_tables(find_recipe("digits"), [setting])


def test_settings_that_name_nothing(tmp_path):
    with pytest.raises(ValueError, match="did you mean 'training'"):
        read_tables(find_recipe("digits"), ["trainng.lr=3"])
    path = tmp_path / "flat.toml"
    path.write_text("training = 3")
    with pytest.raises(ValueError, match="training is a table"):
        read_tables(path, ["training.lr=3"])


@pytest.mark.parametrize("content", [b"[model", b"a = ", b"\xff\xfe\x00", b"[a]\n[a]"])
def test_other_files_are_no_recipe(tmp_path, content):
    path = tmp_path / "bad.toml"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"bad\.toml is not a TOML recipe"):
        read_tables(path)


def test_differences_name_each_changed_key():
    old = tiny_recipe().as_dict()
    new = tiny_recipe(training={"lr": 0.5, "seed": 3}, sampling={"steps": None}).as_dict()
    assert differences(old, old) == []
    assert differences(old, new) == [
        "training.lr was 0.01, now 0.5",
        "training.seed was 0, now 3",
        "sampling.steps was 2, now None",
    ]
    assert differences(new, old)[-1] == "sampling.steps was None, now 2"


def test_a_resolved_recipe_reads_back_equal(tmp_path):
    for wanted in (tiny_recipe(), recipe(read_tables(find_recipe("digits"), SETTINGS))):
        path = tmp_path / "recipe.toml"
        path.write_text(to_toml(wanted.as_dict()), encoding="utf-8")
        again = recipe(read_tables(path))
        assert again == wanted
        assert differences(again.as_dict(), wanted.as_dict()) == []
        assert set(wanted.as_dict()) == set(TABLES)
        assert wanted.as_dict()["training"] == asdict(wanted.training)


text = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x7f"))
scalars = st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False) | text
names = st.from_regex(r"[A-Za-z0-9_-]+", fullmatch=True)
tables_of_values = st.dictionaries(names, st.dictionaries(names, scalars | st.lists(scalars)))


@settings(max_examples=100, deadline=None)
@given(tables=tables_of_values)
def test_toml_there_and_back(tables):
    assert tomllib.loads(to_toml(tables)) == tables


def test_quotes_backslashes_and_letters():
    tables = {"data": {"name": 'C:\\"Zürich"\\新\n\ttab', "flags": [True, False], "none": []}}
    assert tomllib.loads(to_toml(tables)) == tables


def test_a_base_lends_the_tables_that_a_recipe_lacks(tmp_path):
    (tmp_path / "first.toml").write_text("[model]\nname = 'DiT'\ndepth = 3\n[training]\nlr = 0.5\n")
    (tmp_path / "next.toml").write_text("base = 'first'\n[model]\nname = 'DiffuSSM'\n")
    tables = read_tables(tmp_path / "next.toml", ["training.images=7"])
    assert tables == {"model": {"name": "DiffuSSM"}, "training": {"lr": 0.5, "images": 7}}

    (tmp_path / "third.toml").write_text("base = 'next'\n[model]\ndepth = 5\n")
    assert read_tables(tmp_path / "third.toml") == {
        "model": {"name": "DiffuSSM", "depth": 5},
        "training": {"lr": 0.5},
    }
    (tmp_path / "first.toml").write_text("base = 'third'")
    with pytest.raises(ValueError, match="begins with the recipe 'third', which begins with it"):
        read_tables(tmp_path / "third.toml")
    (tmp_path / "lost.toml").write_text("base = 'frist'")
    with pytest.raises(
        ValueError, match=r"begins with the recipe 'frist', but there is no .*frist"
    ):
        read_tables(tmp_path / "lost.toml")


@pytest.mark.parametrize("name", [name for name in BUILT_IN if name.startswith("digits-")])
def test_the_digits_siblings_match_digits(name):
    """In parameters, or in multiply-adds where the recipe's name says so; in all else exactly."""
    ours, theirs = (recipe(read_tables(find_recipe(each))) for each in ("digits", name))
    size, other = (_multiply_adds if name.endswith("-madds") else _parameters)(
        ours.model, theirs.model
    )
    assert abs(other / size - 1) < 0.09
    assert ours.as_dict() | {"model": None} == theirs.as_dict() | {"model": None}


def test_how_it_is_done_is_no_change():
    before = tiny_recipe().as_dict()
    how = {"accumulate": 2, "parallel": "fsdp", "checkpoint_blocks": True, "compile": True}
    after = tiny_recipe(training=how | {"log_every": 100}, data={"workers": 2}).as_dict()
    assert before != after
    assert differences(before, after) == []


def _parameters(*configs):
    with torch.device("meta"):
        return [sum(p.numel() for p in build(config).parameters()) for config in configs]


def _multiply_adds(*configs):
    return [cost(config, 8, 8).total for config in configs]
