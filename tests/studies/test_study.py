"""What a study declares, and the sentences for what it must not."""

import pytest
from tiny_study import TINY

from diffussm.studies import find_study, read_study
from diffussm.training import find_recipe, read_tables, recipe
from diffussm.training.recipe import recipes_folder

BUILT_IN = sorted(path.stem for path in (recipes_folder() / "studies").glob("*.toml"))


def test_a_member_is_its_recipe_with_what_all_share_and_its_own_over_it(declare):
    study = declare(
        ("[members.plain]", '[members.plain]\n[members.other]\nbase = "digits-dit"'),
        ("model.depth = 1\nmodel.d_state = 4", ""),
        ("model.d_model = 8", "training.lr = 0.5"),
        ("model.patch_size = 2", "model.patch_size = 2\ntraining.lr = 0.25"),
    )
    plain, coarse, other = (study.recipe(name, 1) for name in ("plain", "coarse", "other"))
    assert plain.model.d_model == 96  # of the base
    assert plain.training.lr == 0.5  # of all
    assert coarse.training.lr == 0.25  # its own
    assert (plain.model.patch_size, coarse.model.patch_size) == (1, 2)
    assert other.model_name == "DiT"
    assert other.training.lr == 0.5
    assert {made.training.seed for made in (plain, coarse, other)} == {1}
    assert study.recipe("plain", 0, images=640).training.images == 640


def test_a_model_by_its_own_name_stands_alone(declare):
    own = '{ name = "U-Net", base_channels = 32, multipliers = [1, 2], attention_levels = [] }'
    study = declare(
        ("model.patch_size = 2", f"model = {own}"),
        ("model.d_model = 8\nmodel.depth = 1\nmodel.d_state = 4", "training.lr = 0.5"),
    )
    assert study.recipe("coarse").model.base_channels == 32


def test_what_is_not_said(declare):
    study = declare(("seeds = [0, 1]\n", ""), ('title = "Tiny"\n', ""))
    assert study.seeds == (0,)
    assert study.title == study.name == "tiny"
    assert (study.budget, study.reference) == ("images", "plain")


@pytest.mark.parametrize("name", BUILT_IN)
def test_every_built_in_study_can_be_begun(name):
    study = read_study(find_study(name))
    assert len(study.seeds) == 3
    named = {member for claim in study.claims for member in claim.members}
    assert named in ({*study.members}, set())  # none is trained in vain


def test_the_baselines_are_all_recipes_of_digits():
    study = read_study(find_study("baselines-digits"))
    recipes = [path.stem for path in recipes_folder().glob("digits*.toml")]
    assert sorted(study.members) == sorted(recipes)
    for member in study.members:
        own = recipe(read_tables(find_recipe(member))).as_dict()["model"]
        assert study.recipe(member).as_dict()["model"] == own


def test_settings_lie_over_all_and_under_what_a_member_says(tmp_path):
    path = tmp_path / "tiny.toml"
    path.write_text(TINY)
    study = read_study(path, ["training.lr=0.5", "model.patch_size=4"])
    assert [study.recipe(name).training.lr for name in study.members] == [0.5, 0.5]
    assert [study.recipe(name).model.patch_size for name in study.members] == [4, 2]
    with pytest.raises(ValueError, match="a setting looks like"):
        read_study(path, ["lr"])


def test_members_of_the_digits_study_differ_in_what_their_names_say():
    study = read_study(find_study("claims-digits"))
    base = study.recipe("diffussm").as_dict()
    changed = {}
    for member in study.members:
        tables = study.recipe(member).as_dict()
        assert {key: tables[key] for key in tables if key != "model"} == {
            key: base[key] for key in base if key != "model"
        }
        model = tables["model"]
        if model["name"] == "DiffuSSM":
            changed[member] = {k: v for k, v in model.items() if v != base["model"].get(k)}
    assert changed["m-1"] == {"hourglass_ratio": 1}
    assert changed["patch-2"] == {"hourglass_ratio": 1, "patch_size": 2}
    assert changed["tokens"] == {"conditioning": "tokens"}
    assert changed["alternating"] == {"scan": "alternating"}
    assert changed["mamba"].items() >= {"ssm": "mamba", "d_state": 16}.items()


@pytest.mark.parametrize(
    ("old", "new", "sentence"),
    [
        ("title", "titel", "unknown key 'titel'; did you mean 'title'"),
        ('base = "digits"', "", "declares no base"),
        ('base = "digits"', 'base = "digit"', "unknown recipe 'digit'; did you mean 'digits'"),
        ("seeds = [0, 1]", "seeds = [-1]", r"whole numbers from 0 on, not \[-1\]"),
        ("seeds = [0, 1]", "seeds = []", r"whole numbers from 0 on, not \[\]"),
        ("seeds = [0, 1]", 'budget = "image"', "unknown budget 'image'; did you mean 'images'"),
        ("seeds = [0, 1]", 'reference = "plan"', "unknown member 'plan'; did you mean 'plain'"),
        ('["plain", "coarse"]', '["plan"]', "unknown member 'plan'; did you mean 'plain'"),
        ("model.patch_size", "model.patchsize", "'coarse': unknown key 'model.patchsize'"),
        ("model.patch_size = 2", "model.patch_size = 3", "'coarse': height 8 must be"),
        (
            "[members.plain]",
            '[members.plain]\n[members."a/b"]',
            "'a/b' needs a name that a folder can have",
        ),
        ("draws = 2", "draws = 0", "measure.draws must be at least 1, not 0"),
        ('["loss"]', '["lost"]', "unknown metric 'lost'; did you mean 'loss'"),
        ("data.hold_out = 40", "data.hold_out = 0", "holds no images out; set data.hold_out"),
        ("model.patch_size", 'diffusion.prediction = "v"\nmodel.patch_size', "cannot be compared"),
        ("says =", "said =", "unknown key 'claims.said'; did you mean 'claims.says'"),
        ("title =", "title", "is not a TOML file"),
        ("[members.plain]", "[members]\nplain = 3", r"members.plain is a table .* not 3; write"),
        ("[all]", "all = 3\n[al]", "unknown key 'al'; did you mean 'all'"),
    ],
)
def test_mistakes_are_found_before_anything_is_trained(declare, old, new, sentence):
    with pytest.raises(ValueError, match=sentence):
        declare((old, new))


def test_a_metric_of_digits_is_not_for_other_images(declare):
    data = 'data = { name = "textures", size = 8, hold_out = 40 }\nguidance.scale = 1.0'
    with pytest.raises(ValueError, match=r"'recognised' is for digits alone, .* on textures"):
        declare(("data.hold_out = 40", data), ('["loss"]', '["recognised"]'))


def test_studies_are_found_by_name(tmp_path):
    assert find_study("claims-digits").is_file()
    with pytest.raises(ValueError, match="unknown study 'claims-digit'; did you mean 'claims-d"):
        find_study("claims-digit")
    with pytest.raises(ValueError, match=r"there is no file no/where.toml"):
        find_study("no/where.toml")
