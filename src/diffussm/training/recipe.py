"""A recipe: everything a training run is made of, one TOML table for each part."""

import json
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from importlib.resources import files
from pathlib import Path
from typing import Any

from diffussm.config import choose, from_dict, to_dict, unknown
from diffussm.data import DATASETS, ImageDataset
from diffussm.diffusion import DiffusionConfig, Guidance, Sampling
from diffussm.diffusion.losses import WEIGHTINGS
from diffussm.models import model_config
from diffussm.training.optimizer import LR_SCHEDULES

PRECISIONS = ("auto", "float32", "bfloat16")


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """Which images."""

    name: str = "digits"
    """One of `diffussm.data.DATASETS`."""

    def __post_init__(self):
        choose("data set", self.name, DATASETS)


@dataclass(frozen=True, kw_only=True)
class TrainingConfig:
    """How long and how a model is trained; amounts of training are counted in images."""

    images: int
    """Images in all, each epoch's counted again."""
    batch_size: int = 256
    """Images a step, over all devices."""
    lr: float = 1e-4
    """Learning rate of AdamW (betas .9 and .999) at its highest."""
    lr_schedule: str = "constant"
    """constant or cosine (to zero at the end)."""
    warmup_images: int = 0
    """Images over which the learning rate rises linearly from zero."""
    weight_decay: float = 0.0
    """AdamW's, for parameters without a tag of their own."""
    gradient_clip: float = 1.0
    """Largest norm of the gradient."""
    ema_decay: float = 0.9999
    """Share of the averaged weights that each step keeps, in [0, 1); less in the first steps."""
    label_dropout: float = 0.1
    """Share of images shown without their label, in [0, 1]; guidance needs some."""
    weighting: str = "none"
    """Weight of each noise level: none or min-snr."""
    precision: str = "auto"
    """auto (bfloat16 on devices built for it), float32 or bfloat16."""
    seed: int = 0
    """Of initial weights, order of images, noise and label dropout; at least 0."""
    save_every: int = 100_000
    """Images between two checkpoints."""
    preview_every: int = 100_000
    """Images between two grids of samples; 0 for none."""

    def __post_init__(self):
        choose("lr_schedule", self.lr_schedule, LR_SCHEDULES)
        choose("weighting", self.weighting, WEIGHTINGS)
        choose("precision", self.precision, {name: name for name in PRECISIONS})
        for name in ("images", "batch_size", "save_every"):
            _at_least(name, getattr(self, name), 1)
        for name in ("warmup_images", "weight_decay", "seed", "preview_every"):
            _at_least(name, getattr(self, name), 0)
        for name in ("lr", "gradient_clip"):
            if not getattr(self, name) > 0:
                raise ValueError(f"training.{name} must be above 0, not {getattr(self, name)}")
        if not 0 <= self.ema_decay < 1:
            raise ValueError(f"training.ema_decay must lie in [0, 1), not {self.ema_decay}")
        if not 0 <= self.label_dropout <= 1:
            raise ValueError(f"training.label_dropout must lie in [0, 1], not {self.label_dropout}")


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


TABLES = ("data", "model", "diffusion", "training", "sampling", "guidance")


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

    A recipe that says base = "digits" has that file's tables wherever it has none of its own.
    Raises ValueError for text that is not TOML, a base that is not there or has a base itself, or
    a setting that names no key of a table.
    """
    tables = _toml(path)
    if "base" in tables:
        tables = _base(path, tables.pop("base")) | tables
    for setting in settings:
        key, equals, text = setting.partition("=")
        table, _, name = key.strip().partition(".")
        if not (equals and table and name):
            raise ValueError(f"a setting looks like training.batch_size=64, not {setting!r}")
        if table not in TABLES:
            raise ValueError(unknown("table", table, TABLES))
        _table(table, tables.setdefault(table, {}))[name] = _value(text)
    return tables


def recipe(tables: Mapping[str, Any]) -> Recipe:
    """A checked recipe from its tables; what the data decide is filled in.

    The model's input_size, in_channels and num_classes come from the data unless given. Raises
    ValueError for an unknown table, key or name, a wrong value, or parts that do not fit.
    """
    for name, table in tables.items():
        if name not in TABLES:
            raise ValueError(unknown("table", name, TABLES))
        _table(name, table)
    data = from_dict(DataConfig, tables.get("data", {}), "data.")
    model_name, model = _model(tables.get("model", {}), DATASETS[data.name]())
    diffusion = from_dict(DiffusionConfig, tables.get("diffusion", {}), "diffusion.")
    if "learned_variance" not in tables.get("diffusion", {}):
        diffusion = replace(diffusion, learned_variance=model.learned_variance)
    if diffusion.learned_variance != model.learned_variance:
        raise ValueError("diffusion.learned_variance differs from model.learned_variance; set one")
    if "images" not in tables.get("training", {}):
        raise ValueError("the recipe does not say how long to train; set training.images")
    return Recipe(
        data=data,
        model_name=model_name,
        model=model,
        diffusion=diffusion,
        training=from_dict(TrainingConfig, tables["training"], "training."),
        sampling=from_dict(Sampling, tables.get("sampling", {}), "sampling."),
        guidance=from_dict(Guidance, tables.get("guidance", {}), "guidance."),
    )


def differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """What changed between two resolved recipes, one sentence for each key."""
    changes = []
    for table in TABLES:
        before, after = old.get(table, {}), new.get(table, {})
        for key in sorted(before.keys() | after.keys()):
            if before.get(key) != after.get(key):
                changes.append(f"{table}.{key} was {before.get(key)!r}, now {after.get(key)!r}")
    return changes


def to_toml(tables: Mapping[str, Mapping[str, Any]]) -> str:
    """The tables as TOML text; values are numbers, text, truth values and lists of them."""
    lines = []
    for name, table in tables.items():
        lines += [f"[{name}]", *(f"{key} = {_literal(value)}" for key, value in table.items()), ""]
    return "\n".join(lines)


def _model(table: Mapping[str, Any], data: ImageDataset) -> tuple[str, Any]:
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


def _base(path: Path, name: Any) -> dict[str, Any]:
    base = path.with_name(f"{name}.toml")
    if not base.is_file():
        raise ValueError(f"{path} begins with the recipe {name!r}, but there is no {base}")
    tables = _toml(base)
    if "base" in tables:
        raise ValueError(f"{path} begins with {name!r}, which has a base itself; take that one")
    return tables


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


def _at_least(name: str, value: int | float, least: int) -> None:
    if value < least:
        raise ValueError(f"training.{name} must be at least {least}, not {value}")
