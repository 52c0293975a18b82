"""Contains the reading of a trainer's configuration: YAML onto a frozen dataclass, with checks.

What may be set, and of which type, is what the dataclass declares. Nothing else is accepted.
"""

from __future__ import annotations

import dataclasses
import types
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

PACK_FOLDER = Path(__file__).resolve().parents[2]
CONFIG_FOLDER = PACK_FOLDER / "core" / "configs"
Params = TypeVar("Params")


class ConfigError(ValueError):
    """A configuration that cannot be used; the message names the key."""


def read_config(kind: type[Params], source: str | Path, settings: Sequence[str] = ()) -> Params:
    """Read a configuration.

    ``${pack}`` in the file stands for the folder of Lift3D. Other paths are taken from the
    current folder. A key ``base`` names another configuration, whose values hold where the file
    gives none.

    Args:
        kind: frozen dataclass that the file fills; keys that it leaves out keep their defaults.
        source: YAML file, or the name of one in ``core/configs``.
        settings: ``key=value`` or ``group.key=value``, which win over the file.

    Raises:
        ConfigError: no such file, no YAML, an unknown key, a wrong type or a forbidden value.
    """
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException
    from yaml import YAMLError

    path = find_config(source)
    _require_assignments(settings)
    try:
        merged = OmegaConf.merge(_load(path), OmegaConf.from_dotlist(list(settings)))
        if "pack" in merged:
            raise ConfigError(f"{path.name}: 'pack' is the name of Lift3D's folder, not a key.")
        merged = OmegaConf.merge({"pack": str(PACK_FOLDER)}, merged)
        values: Any = OmegaConf.to_container(merged, resolve=True, throw_on_missing=True)
    except (OmegaConfBaseException, YAMLError, UnicodeDecodeError, OSError) as error:
        raise ConfigError(f"{path.name} cannot be read: {error}") from error
    values.pop("pack")
    try:
        return make_params(kind, values)
    except ConfigError as error:
        raise ConfigError(f"{path.name}: {error}") from error


def _load(path: Path, above: tuple[Path, ...] = ()) -> Any:
    """Values of a file over those of its base."""
    from omegaconf import OmegaConf

    if path in above:
        names = " -> ".join(each.name for each in (*above, path))
        raise ConfigError(f"{path.name} is a base of itself: {names}.")
    given: Any = OmegaConf.load(path)
    if not OmegaConf.is_dict(given):
        raise ConfigError(f"{path.name} must hold keys and values, such as 'steps: 1000'.")
    base = given.pop("base", None)
    if base is None:
        return given
    return OmegaConf.merge(_load(find_config(str(base)), (*above, path)), given)


def find_config(source: str | Path) -> Path:
    """The file, or the shipped configuration of that name.

    Raises:
        ConfigError: neither is there.
    """
    path = Path(source).expanduser()
    if path.is_file():
        return path
    shipped = CONFIG_FOLDER / f"{source}.yaml"
    if shipped.parent == CONFIG_FOLDER and shipped.is_file():
        return shipped
    raise ConfigError(f"{source} is neither a file nor the name of one in {CONFIG_FOLDER}.")


def make_params(kind: type[Params], values: Mapping[str, Any]) -> Params:
    """Dataclass from plain values; see `read_config`."""
    return _dataclass(kind, values, None, "")


def settings_as_json(value: Any) -> Any:
    """Settings as plain values; paths inside the pack are written as in a configuration.

    Args:
        value: a dataclass, or what is inside one.
    """
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return settings_as_json(dataclasses.asdict(value))
    if isinstance(value, Mapping):
        return {key: settings_as_json(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [settings_as_json(item) for item in value]
    if isinstance(value, Path):
        inside = value.is_absolute() and value.is_relative_to(PACK_FOLDER)
        return f"${{pack}}/{value.relative_to(PACK_FOLDER).as_posix()}" if inside else str(value)
    return value


def _require_assignments(settings: Sequence[str]) -> None:
    bad = [text for text in settings if "=" not in text or text.startswith("=")]
    if bad:
        raise ConfigError(f"Settings must look like key=value, got {', '.join(bad)}.")


def _dataclass(kind: Any, values: Any, default: Any, place: str) -> Any:
    """An instance; keys that are left out come from ``default``, else from the class."""
    if not isinstance(values, Mapping):
        raise ConfigError(f"{place or 'The file'} must hold keys and values, got {values!r}.")
    fields = {field.name: field for field in dataclasses.fields(kind)}
    unknown = [str(key) for key in values if key not in fields]
    if unknown:
        raise ConfigError(
            f"unknown key {_join(place, unknown[0])}; {kind.__name__} knows {', '.join(fields)}."
        )
    hints = get_type_hints(kind)
    given = {
        name: _value(hints[name], values[name], _default(fields[name], default), _join(place, name))
        for name in values
    }
    try:
        if default is not None:
            return dataclasses.replace(default, **given)
        _require_all(fields, given, place)
        return kind(**given)
    except ConfigError:
        raise
    except ValueError as error:
        raise ConfigError(f"{place}: {error}" if place else str(error)) from error


def _require_all(fields: Mapping[str, Any], given: Mapping[str, Any], place: str) -> None:
    missing = [
        _join(place, name)
        for name, field in fields.items()
        if name not in given
        and field.default is dataclasses.MISSING
        and field.default_factory is dataclasses.MISSING
    ]
    if missing:
        raise ConfigError(f"{', '.join(missing)} must be given.")


def _default(field: dataclasses.Field[Any], owner: Any) -> Any:
    if owner is not None:
        return getattr(owner, field.name)
    if field.default_factory is not dataclasses.MISSING:
        return field.default_factory()
    return None if field.default is dataclasses.MISSING else field.default


def _value(hint: Any, value: Any, default: Any, place: str) -> Any:
    origin, arguments = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        return _optional(arguments, value, default, place)
    if origin is Literal:
        if value not in arguments:
            raise ConfigError(f"{place} must be one of {', '.join(map(str, arguments))}, {value=}.")
        return value
    if origin is tuple:
        return _tuple(arguments, value, place)
    if dataclasses.is_dataclass(hint):
        return _dataclass(hint, value, default, place)
    return _plain(hint, value, place)


def _optional(arguments: tuple[Any, ...], value: Any, default: Any, place: str) -> Any:
    if value is None and type(None) in arguments:
        return None
    (kind,) = (argument for argument in arguments if argument is not type(None))
    return _value(kind, value, default, place)


def _tuple(arguments: tuple[Any, ...], value: Any, place: str) -> tuple[Any, ...]:
    if not isinstance(value, (list, tuple)):
        raise ConfigError(f"{place} must be a list, got {value!r}.")
    if len(arguments) == 2 and arguments[1] is Ellipsis:
        arguments = (arguments[0],) * len(value)
    if len(arguments) != len(value):
        raise ConfigError(f"{place} must have {len(arguments)} entries, got {value!r}.")
    return tuple(
        _value(hint, item, None, f"{place}[{index}]")
        for index, (hint, item) in enumerate(zip(arguments, value, strict=True))
    )


def _plain(hint: Any, value: Any, place: str) -> Any:
    if hint is Path and isinstance(value, str) and value:
        return Path(value).expanduser()
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    # bool is a kind of int to Python, but not to people.
    if not isinstance(value, hint) or (isinstance(value, bool) and hint is not bool):
        names = {float: "a number", int: "a whole number", bool: "true or false", str: "a text"}
        wanted = names.get(hint, "a path" if hint is Path else hint.__name__)
        raise ConfigError(f"{place} must be {wanted}, got {value!r}.")
    return value


def _join(place: str, name: str) -> str:
    return f"{place}.{name}" if place else name
