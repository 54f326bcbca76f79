"""A recipe: everything a training run is made of, one TOML table for each part."""

import json
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from importlib.resources import files
from pathlib import Path
from typing import Any

import torch

from diffussm.config import choose, from_dict, to_dict, unknown
from diffussm.data import DataConfig, Dataset, ImageDataset, load_data
from diffussm.diffusion import DiffusionConfig, Guidance, Sampling
from diffussm.models import model_config
from diffussm.training.settings import EvaluationConfig, TrainingConfig


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """A whole training run; equal recipes give equal weights."""

    data: DataConfig
    model_name: str
    """A preset's name; `model` is its config with the recipe's options over it."""
    model: Any
    diffusion: DiffusionConfig
    training: TrainingConfig
    sampling: Sampling
    """How previews are drawn; stored with the model as its usual way, and so is `guidance`."""
    guidance: Guidance
    evaluation: EvaluationConfig
    """How the averaged weights are scored on the way, where training.evaluate_every asks for it."""

    def __post_init__(self):
        if self.guidance.scale != 1:
            if not self.model.num_classes:
                raise ValueError(
                    "an unconditional model has no guidance; leave guidance.scale at 1"
                )
            if not self.training.label_dropout:
                raise ValueError("guidance needs training.label_dropout above 0, for instance 0.1")
        if self.sampling.total > self.diffusion.steps:
            raise ValueError(
                f"sampling.steps is {self.sampling.total}, but the process has only "
                f"{self.diffusion.steps} (diffusion.steps); take fewer"
            )
        if (self.guidance.channels or 1) > self.model.in_channels:
            raise ValueError(
                f"guidance.channels is {self.guidance.channels}, but images have only "
                f"{self.model.in_channels}; take fewer, or leave it out for all"
            )

    def as_dict(self) -> dict[str, dict[str, Any]]:
        """The resolved tables, every key present."""
        tables = {name: to_dict(getattr(self, name)) for name in TABLES}
        tables["model"] = {"name": self.model_name} | tables["model"]
        return tables


TABLES = ("data", "model", "diffusion", "training", "sampling", "guidance", "evaluation")

MEANS = {"data.workers", "training.log_every"}
MEANS |= {f"training.{key}" for key in ("accumulate", "parallel", "checkpoint_blocks", "compile")}
"""Keys that say how it is done, not what; they may change as the machine does."""


def recipes_folder() -> Path:
    """Where the built-in recipes lie: inside an installed package, else at the checkout's root."""
    shipped = Path(str(files("diffussm") / "recipes"))
    return shipped if shipped.is_dir() else Path(__file__).parents[3] / "recipes"


def find_recipe(name: str) -> Path:
    """The file of a built-in recipe, or `name` itself where it is a TOML file's path.

    Raises ValueError, naming the nearest built-in one, where there is neither.
    """
    if name.endswith(".toml"):
        if not Path(name).is_file():
            raise ValueError(f"there is no recipe file {name}")
        return Path(name)
    return choose("recipe", name, {path.stem: path for path in recipes_folder().glob("*.toml")})


def read_tables(path: Path, settings: Iterable[str] = ()) -> dict[str, dict[str, Any]]:
    """The tables of a TOML recipe with settings like "training.batch_size=64" over them.

    A recipe that says base = "digits" has that file's tables and changes keys in them; a table that
    begins with a name of its own stands alone.
    Raises ValueError for text that is not TOML, a base that is not there or leads back to the
    recipe, or a setting that names no key of a table.
    """
    return with_settings(_with_base(path), settings)


def with_settings(tables: Mapping[str, Any], settings: Iterable[str]) -> dict[str, Any]:
    """The tables with settings like "training.batch_size=64" over them; errors as `read_tables`."""
    tables = dict(tables)
    for setting in settings:
        key, equals, text = setting.partition("=")
        table, _, name = key.strip().partition(".")
        if not (equals and table and name):
            raise ValueError(f"a setting looks like training.batch_size=64, not {setting!r}")
        if table not in TABLES:
            raise ValueError(unknown("table", table, TABLES))
        tables[table] = _table(table, tables.get(table, {})) | {name: _value(text)}
    return tables


def recipe(tables: Mapping[str, Any], data: Dataset | None = None) -> Recipe:
    """A checked recipe from its tables; what the data decide is filled in.

    data    what to plan with where the images are not there, for instance `stand_in`

    The model's input_size, in_channels and num_classes come from the data unless given. Raises
    ValueError for an unknown table, key or name, a wrong value, or parts that do not fit.
    """
    for name, table in tables.items():
        if name not in TABLES:
            raise ValueError(unknown("table", name, TABLES))
        _table(name, table)
    source = from_dict(DataConfig, tables.get("data", {}), "data.")
    found = load_data(source) if data is None else data
    model_name, model = _model(tables.get("model", {}), found)
    diffusion = from_dict(DiffusionConfig, tables.get("diffusion", {}), "diffusion.")
    if "learned_variance" not in tables.get("diffusion", {}):
        diffusion = replace(diffusion, learned_variance=model.learned_variance)
    if diffusion.learned_variance != model.learned_variance:
        raise ValueError("diffusion.learned_variance differs from model.learned_variance; set one")
    if "images" not in tables.get("training", {}):
        raise ValueError("the recipe does not say how long to train; set training.images")
    return Recipe(
        data=source,
        model_name=model_name,
        model=model,
        diffusion=diffusion,
        training=from_dict(TrainingConfig, tables["training"], "training."),
        sampling=from_dict(Sampling, tables.get("sampling", {}), "sampling."),
        guidance=from_dict(Guidance, tables.get("guidance", {}), "guidance."),
        evaluation=from_dict(EvaluationConfig, tables.get("evaluation", {}), "evaluation."),
    )


def stand_in(tables: Mapping[str, Any]) -> Dataset:
    """No images, but of the size and with the classes that the recipe's model takes.

    Raises ValueError where the recipe leaves them to the data.
    """
    options = dict(tables.get("model", {}))
    for key in ("input_size", "in_channels", "num_classes"):
        if key not in options:
            raise ValueError(f"the data are not there, and the recipe does not set model.{key}")
    config = model_config(options.pop("name", "DiffuSSM"), options, "model.")
    images = torch.empty(0, config.in_channels, *config.size)
    names = tuple(str(number) for number in range(config.num_classes))
    return ImageDataset(images=images, labels=torch.empty(0).long(), class_names=names)


def differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """What changed in what two resolved recipes train, one sentence for each key."""
    changes = []
    for table in TABLES:
        before, after = old.get(table, {}), new.get(table, {})
        for key in sorted(before.keys() | after.keys()):
            if before.get(key) != after.get(key) and f"{table}.{key}" not in MEANS:
                changes.append(f"{table}.{key} was {before.get(key)!r}, now {after.get(key)!r}")
    return changes


def to_toml(tables: Mapping[str, Mapping[str, Any]]) -> str:
    """The tables as TOML text; values are numbers, text, truth values and lists of them."""
    lines = []
    for name, table in tables.items():
        lines += [f"[{name}]", *(f"{key} = {_literal(value)}" for key, value in table.items()), ""]
    return "\n".join(lines)


def _model(table: Mapping[str, Any], data: Dataset) -> tuple[str, Any]:
    options = dict(table)
    name = options.pop("name", None)
    if not isinstance(name, str):
        raise ValueError('the recipe names no model; set model.name, for instance "DiffuSSM-S"')
    channels, height, width = data.shape
    classes = len(data.class_names)
    found = {"input_size": [height, width], "in_channels": channels, "num_classes": classes}
    config = model_config(name, found | options, "model.")
    if (config.in_channels, *config.size) != data.shape:
        raise ValueError(
            f"the model takes {config.in_channels} x {config.size[0]} x {config.size[1]}, the "
            f"data are {channels} x {height} x {width}; leave out model.input_size and in_channels"
        )
    if config.num_classes not in (0, classes):
        raise ValueError(
            f"model.num_classes is {config.num_classes}; the data have {classes} (0: unconditional)"
        )
    return name, config


def _toml(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is not a TOML recipe: {error}") from None


def _with_base(path: Path, above: tuple[Path, ...] = ()) -> dict[str, Any]:
    tables, above = _toml(path), (*above, path)
    if "base" not in tables:
        return tables
    name = tables.pop("base")
    base = path.with_name(f"{name}.toml")
    if not base.is_file():
        raise ValueError(f"{path} begins with the recipe {name!r}, but there is no {base}")
    if base in above:
        raise ValueError(f"{path} begins with the recipe {name!r}, which begins with it in turn")
    return laid_over(_with_base(base, above), tables)


def laid_over(base: Mapping[str, Any], tables: Mapping[str, Any]) -> dict[str, Any]:
    """The tables of a base with those of another recipe over them, as `read_tables` lays them."""
    merged = dict(base)
    for name, table in tables.items():
        own = _table(name, table)
        merged[name] = own if "name" in own else base.get(name, {}) | own
    return merged


def _table(name: str, value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ValueError(f"{name} is a table of the recipe, not {value!r}")
    return value


def _value(text: str) -> Any:
    """A setting's value as TOML reads it; a bare word is text."""
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text.strip()


def _literal(value: Any) -> str:
    if isinstance(value, (bool, str)):
        return json.dumps(value, ensure_ascii=False)  # TOML writes them as JSON does
    if isinstance(value, list):
        return "[" + ", ".join(_literal(item) for item in value) + "]"
    return repr(value)
