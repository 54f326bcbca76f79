"""A study: models that differ in one thing each, and the claims that they are to decide.

title = "..."               what it is about
base = "digits"             recipe of every member that names no other
seeds = [0, 1, 2]           of training; each member is trained once with each
budget = "images"           what members have in equal amounts, one of BUDGETS
reference = "published"     the member whose amount it is
[all]                       tables laid over every member's recipe
[measure]                   what is measured of each trained model, `Measuring`
[members.NAME]              tables over the recipe; base = "digits-dit" begins with another one
[[claims]]                  says = "...", members = [...]: what the table and figure put together
"""

import shlex
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from diffussm.config import choose, from_dict, unknown
from diffussm.data import DataConfig, Dataset, load_data
from diffussm.studies.budget import BUDGETS
from diffussm.studies.measures import METRICS, Measuring
from diffussm.training import Recipe, find_recipe, read_tables, recipe
from diffussm.training.recipe import laid_over, recipes_folder, with_settings

Tables = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Claim:
    """One sentence to be tested, and the members that test it."""

    says: str
    members: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Study:
    """A study as declared; `read_study` makes it of a file."""

    name: str
    command: str
    """That runs it, as one types it."""
    title: str
    base: str
    seeds: tuple[int, ...]
    budget: str
    reference: str
    all: Tables
    measure: Measuring
    members: Mapping[str, Tables]
    claims: tuple[Claim, ...]
    loaded: dict[DataConfig, Dataset] = field(default_factory=dict, repr=False, compare=False)

    def recipe(self, member: str, seed: int = 0, images: int | None = None) -> Recipe:
        """What `member` is trained by, on `images` in place of the recipe's own number.

        Raises ValueError for a member that there is not, and for a recipe that is wrong.
        """
        own = dict(choose("member", member, self.members))
        tables = laid_over(read_tables(find_recipe(own.pop("base", self.base))), self.all)
        tables = laid_over(tables, own)
        changed = {"seed": seed} | ({} if images is None else {"images": images})
        tables = laid_over(tables, {"training": changed})
        source = from_dict(DataConfig, tables.get("data", {}), "data.")
        if source not in self.loaded:
            self.loaded[source] = load_data(source)
        try:
            return recipe(tables, self.loaded[source])
        except ValueError as error:
            raise ValueError(f"member {member!r}: {error}") from None


def find_study(name: str) -> Path:
    """The file of a built-in study, or `name` itself where it is a TOML file's path.

    Raises ValueError, naming the nearest built-in one, where there is neither.
    """
    if name.endswith(".toml"):
        if not Path(name).is_file():
            raise ValueError(f"there is no file {name} that declares a study")
        return Path(name)
    return choose("study", name, {path.stem: path for path in _built_in().glob("*.toml")})


def read_study(path: Path, settings: Iterable[str] = ()) -> Study:
    """The study that a TOML file declares, with settings like "data.size=64" over [all].

    Raises ValueError for text that is not TOML, an unknown key, a name that is not a member's, and
    a member's recipe that is wrong: before anything is trained.
    """
    try:
        tables = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is not a TOML file: {error}") from None
    for key in tables:
        if key not in KEYS:
            raise ValueError(unknown("key", key, KEYS))
    for key in ("all", "measure", "members"):
        _check_table(key, tables.get(key, {}))
    for name, member in tables.get("members", {}).items():
        _check_table(f"members.{name}", member)
    for key in ("base", "members"):
        if not tables.get(key):
            raise ValueError(f"{path} declares no {key}; a study needs them")
    members, settings = tables["members"], tuple(settings)
    study = Study(
        name=path.stem,
        command=_command(path, settings),
        title=tables.get("title", path.stem),
        base=tables["base"],
        seeds=tuple(tables.get("seeds", [0])),
        budget=tables.get("budget", "images"),
        reference=tables.get("reference") or next(iter(members)),
        all=with_settings(tables.get("all", {}), settings),
        measure=from_dict(Measuring, tables.get("measure", {}), "measure."),
        members=members,
        claims=tuple(from_dict(Claim, claim, "claims.") for claim in tables.get("claims", [])),
    )
    _check(study)
    return study


KEYS = ("title", "base", "seeds", "budget", "reference", "all", "measure", "members", "claims")


def _built_in() -> Path:
    return recipes_folder() / "studies"


def _command(path: Path, settings: Iterable[str]) -> str:
    given = path.stem if path.parent == _built_in() else str(path)
    changed = [word for setting in settings for word in ("--set", setting)]
    return shlex.join(["diffussm", "study", given, *changed])


def _check_table(name: str, value: Any) -> None:
    if not isinstance(value, dict):
        raise ValueError(f"{name} is a table of the study, not {value!r}; write [{name}]")


def _check(study: Study) -> None:
    choose("budget", study.budget, BUDGETS)
    choose("member", study.reference, study.members)
    if not study.seeds or any(type(seed) is not int or seed < 0 for seed in study.seeds):
        raise ValueError(f"seeds are whole numbers from 0 on, not {list(study.seeds)}")
    for claim in study.claims:
        for member in claim.members:
            choose("member", member, study.members)
    held_out = set()
    for member in study.members:
        if not Path(member).name == member:
            raise ValueError(f"member {member!r} needs a name that a folder can have")
        made = study.recipe(member)
        held_out.add((made.data, made.diffusion.prediction))
        for name in study.measure.metrics:
            if METRICS[name].only not in ("", made.data.name):
                raise ValueError(
                    f"metric {name!r} is for {METRICS[name].only} alone, and member {member!r} "
                    f"is trained on {made.data.name}; leave it out of measure.metrics"
                )
        if not made.data.hold_out:
            raise ValueError(f"member {member!r} holds no images out; set data.hold_out in [all]")
    if len(held_out) > 1:
        raise ValueError(
            "losses of members that differ in data or in diffusion.prediction cannot be compared; "
            "set both in [all]"
        )
