"""Settings: frozen keyword-only dataclasses, read from plain dictionaries, with errors that help.

Each dataclass stands beside what it configures. Here is only what they share: choosing by name,
and turning the tables of a TOML file into dataclasses and back.
"""

import dataclasses
import types
import typing
from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from typing import Any, TypeVar

T = TypeVar("T")


def choose(what: str, name: str, choices: Mapping[str, T]) -> T:
    """The entry `name` of `choices`; a ValueError that names the nearest right one otherwise."""
    if name not in choices:
        raise ValueError(unknown(what, name, choices))
    return choices[name]


def unknown(what: str, name: str, allowed: Iterable[str]) -> str:
    """The sentence for a name that does not exist: the nearest right one, and all of them."""
    allowed = list(allowed)
    near = get_close_matches(str(name), allowed, n=1, cutoff=0.5)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    return f"unknown {what} {name!r}{hint} (allowed: {', '.join(map(repr, allowed))})"


def from_dict(cls: type[T], values: Mapping[str, Any], where: str = "") -> T:
    """A dataclass `cls` from plain `values`; tables become nested dataclasses.

    `where` prefixes the keys in errors ("training." gives "training.batch_size").
    Raises ValueError for an unknown key or a value of the wrong type.
    """
    hints = typing.get_type_hints(cls)
    names = [field.name for field in dataclasses.fields(cls)]  # pyright: ignore[reportArgumentType]
    for key in values:
        if key not in names:
            raise ValueError(unknown("key", where + key, [where + name for name in names]))
    return cls(**{key: _convert(value, hints[key], where + key) for key, value in values.items()})


def to_dict(config: Any) -> dict[str, Any]:
    """The plain values of a dataclass, without those that are None (TOML and JSON safe)."""
    result = {}
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if dataclasses.is_dataclass(value):
            result[field.name] = to_dict(value)
        elif value is not None:
            result[field.name] = list(value) if isinstance(value, tuple) else value
    return result


def _convert(value: Any, hint: Any, key: str) -> Any:
    if dataclasses.is_dataclass(hint):
        if not isinstance(value, Mapping):
            raise ValueError(f"{key} is a table, not {value!r}; set {key}.NAME instead")
        return from_dict(typing.cast(type, hint), value, key + ".")
    options = typing.get_args(hint) if _is_union(hint) else (hint,)
    for option in options:
        converted = _fit(value, option)
        if converted is not None:
            return converted
    if value is None and type(None) in options:
        return None
    raise ValueError(f"{key} must be {_describe(options)}, not {value!r}")


def _fit(value: Any, hint: Any) -> Any:
    """`value` as the plain type `hint`, or None where it is not one."""
    if typing.get_origin(hint) is tuple:
        kinds = typing.get_args(hint)
        if not isinstance(value, (list, tuple)):
            return None
        if len(kinds) == 2 and kinds[1] is Ellipsis:
            kinds = (kinds[0],) * len(value)
        if len(value) != len(kinds):
            return None
        items = tuple(_fit(item, kind) for item, kind in zip(value, kinds, strict=True))
        return None if None in items else items
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if isinstance(value, bool) and hint is not bool:  # bool is an int to Python, not to us
        return None
    return value if hint in (bool, int, float, str) and isinstance(value, hint) else None


def _is_union(hint: Any) -> bool:
    return typing.get_origin(hint) in (typing.Union, types.UnionType)


def _describe(options: tuple[Any, ...]) -> str:
    words = {int: "a whole number", float: "a number", bool: "true or false", str: "text"}
    names = [words.get(option, "a list") for option in options if option is not type(None)]
    return " or ".join(dict.fromkeys(names))
