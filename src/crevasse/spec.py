"""Names with options, as a person types them and as they stand in a config.

``transformer:width=128,layers=4`` names an entry of a table and sets fields of the frozen dataclass behind
it. The same thing is kept on disk as ``{"name": "transformer", "width": 128, "layers": 4, ...}`` with every
field written out, so that a config says what ran even after a default changes.
"""

import dataclasses
import importlib
import re
import types
import typing
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar, Generic, NewType, TypeVar

from crevasse.errors import UserError, unknown

#: Allowed values of an integer, written ``1-9+15-19``; the empty text is none at all.
Sizes = NewType("Sizes", tuple[int, ...])


def parse_sizes(text: str) -> Sizes:
    """``"1-3+7"`` -> (1, 2, 3, 7). Raises UserError for anything else."""
    found: set[int] = set()
    for part in filter(None, text.replace(" ", "").split("+")):
        match = re.fullmatch(r"([0-9]{1,9})(?:-([0-9]{1,9}))?", part)
        if not match:
            raise UserError(f"{text[:80]!r} is no list of sizes (write them as 6, 1-6 or 1-9+15-19)")
        first, last = int(match[1]), int(match[2] or match[1])
        if last < first or last - first > 100_000:
            raise UserError(f"{part!r} is no range of sizes (the first must not exceed the last)")
        found.update(range(first, last + 1))
    return Sizes(tuple(sorted(found)))


def format_sizes(sizes: tuple[int, ...]) -> str:
    """The inverse of `parse_sizes`: (1, 2, 3, 7) -> ``"1-3+7"``."""
    runs: list[list[int]] = []
    for value in sizes:
        if runs and value == runs[-1][-1] + 1:
            runs[-1].append(value)
        else:
            runs.append([value])
    return "+".join(str(r[0]) if len(r) == 1 else f"{r[0]}-{r[-1]}" for r in runs)


class Named:
    """Base of everything that stands in a table: a frozen dataclass with a name."""

    name: ClassVar[str]
    #: The one field that follows the colon as it stands, whatever its characters (``pairs:FILE``).
    bare: ClassVar[str | None] = None
    #: The field that may stand first, without its name (``pretrained:FOLDER,lora=16``).
    leading: ClassVar[str | None] = None


#: Metadata of a field that follows from the others and from files: kept in the config, left out of `describe`.
DERIVED = {"derived": True}


@dataclasses.dataclass(frozen=True)
class Entry:
    """One line of a table: where the class is, and what it is in one sentence."""

    path: str  # "package.module:Class", imported only when asked for
    summary: str


T = TypeVar("T", bound=Named)


class Table(Mapping[str, Entry], Generic[T]):
    """The explicit list of what exists of one kind. Looking at it imports nothing."""

    def __init__(self, kind: str, entries: dict[str, Entry]) -> None:
        self.kind = kind
        self._entries = entries

    def __getitem__(self, name: str) -> Entry:
        return self._entries[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)

    def cls(self, name: str) -> type[T]:
        """The class behind a name. Raises UserError that lists the names there are."""
        if name not in self:
            raise unknown(self.kind, name, self)
        module, _, attribute = self[name].path.partition(":")
        found: type[T] = getattr(importlib.import_module(module), attribute)
        return found

    def parse(self, text: str, **defaults: Any) -> T:
        """``"name:key=value,key=value"`` -> the object. `defaults` are fields that the text may override."""
        name, _, rest = text.partition(":")
        options = dict(defaults)
        cls = self.cls(name.strip())
        if cls.bare and rest:
            return self.build(name.strip(), {**options, cls.bare: rest})
        for place, item in enumerate(filter(None, rest.split(","))):
            key, equals, value = item.partition("=")
            if not equals and place == 0 and cls.leading:
                key, value = cls.leading, item
            elif not equals:
                raise UserError(f"{self.kind} option {item!r} is not of the form key=value (in {text!r})")
            options[key.strip()] = value.strip()
        return self.build(name.strip(), options)

    def build(self, name: str, options: Mapping[str, Any]) -> T:
        """The object called `name` with the given fields, as text or as values."""
        cls = self.cls(name)
        hints = typing.get_type_hints(cls)
        fields = {f.name: hints[f.name] for f in dataclasses.fields(cls) if f.init}  # type: ignore[arg-type]
        values: dict[str, Any] = {}
        nested: dict[str, dict[str, Any]] = {}
        for key, value in options.items():
            head, dot, tail = key.partition(".")
            if head not in fields:
                error = unknown(f"option of {self.kind} {name}", head, fields or ["none"])
                within = [f"{f.name}.{head}" for f in dataclasses.fields(cls) if head in _options(f.default)]  # type: ignore[arg-type]
                raise (
                    UserError(f"{error}; {within[0]} is one of its {within[0].partition('.')[0]}") if within else error
                )
            if dot:
                require(_is_named(fields[head]), f"{head} of {self.kind} {name} has no options of its own ({key})")
                nested.setdefault(head, {})[tail] = value
            else:
                values[head] = value
        for key, hint in fields.items():
            if _is_named(hint) and (key in values or key in nested):
                values[key] = self._nested(cls, key, values.get(key), nested.get(key, {}))
            elif key in values:
                values[key] = convert(values[key], hint, f"{key} of {self.kind} {name}")
        try:
            return cls(**values)
        except TypeError:
            missing = [
                f.name
                for f in dataclasses.fields(cls)  # type: ignore[arg-type]
                if f.init
                and f.name not in values
                and f.default is dataclasses.MISSING
                and f.default_factory is dataclasses.MISSING
            ]
            if not missing:
                raise
            raise UserError(f"{self.kind} {name} needs {', '.join(missing)}") from None

    def _nested(self, cls: type[T], key: str, value: Any, options: dict[str, Any]) -> Any:
        if value is None:
            value = next(f.default for f in dataclasses.fields(cls) if f.name == key)  # type: ignore[arg-type]
        if isinstance(value, str):
            return self.build(value, options)
        if isinstance(value, Mapping):
            return self.load(value)
        return self.build(value.name, {**to_json(value, drop_name=True), **options})

    def load(self, data: Mapping[str, Any]) -> T:
        """The inverse of `to_json`."""
        return self.build(str(data.get("name")), {k: v for k, v in data.items() if k != "name"})


def _options(thing: Any) -> list[str]:
    """Names of the options of a table's object; of anything else none."""
    return [f.name for f in dataclasses.fields(thing)] if isinstance(thing, Named) else []  # type: ignore[arg-type]


def _is_named(hint: Any) -> bool:
    return isinstance(hint, type) and issubclass(hint, Named)


def convert(value: Any, hint: Any, where: str) -> Any:
    """Text or JSON value -> the type that a field declares. Raises UserError that says what is allowed."""
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if hint is Sizes:
        if isinstance(value, str):
            return parse_sizes(value)
        found = list(value) if isinstance(value, list | tuple) else [value]
        if any(type(v) is not int or v < 0 for v in found):
            raise UserError(f"{where} must be sizes (6, [1, 2, 3] or text such as 1-6+9), not {value!r}")
        return Sizes(tuple(sorted(set(found))))
    if origin is typing.Literal:
        if value not in args:
            raise unknown(where, str(value), map(str, args))
        return value
    if origin in (types.UnionType, typing.Union):
        if value is None or value == "none":
            return None
        return convert(value, next(a for a in args if a is not type(None)), where)
    if hint is bool:
        if isinstance(value, bool):
            return value
        if str(value).lower() in ("true", "yes", "1", "false", "no", "0"):
            return str(value).lower() in ("true", "yes", "1")
        raise UserError(f"{where} must be true or false, not {value!r}")
    if hint in (int, float):
        try:
            number = hint(value.replace("_", "")) if isinstance(value, str) else hint(value)
            if isinstance(value, bool) or (hint is int and isinstance(value, float) and number != value):
                raise ValueError
            return number
        except (ValueError, TypeError, OverflowError):
            kind = "a whole number" if hint is int else "a number"
            raise UserError(f"{where} must be {kind}, not {value!r}") from None
    return str(value)


def to_json(thing: Named, drop_name: bool = False) -> dict[str, Any]:
    """Every field of a table's object, written out; nested objects too."""
    data: dict[str, Any] = {} if drop_name else {"name": thing.name}
    for field in dataclasses.fields(thing):  # type: ignore[arg-type]
        if field.init:
            value = getattr(thing, field.name)
            if isinstance(value, Named):
                value = to_json(value)
            elif isinstance(value, tuple):
                value = format_sizes(value)
            data[field.name] = value
    return data


def describe(thing: Named) -> str:
    """The short text that `Table.parse` reads back: the name, and the fields that differ from their default."""
    if thing.bare:
        return f"{thing.name}:{getattr(thing, thing.bare)}"
    changed: list[str] = []
    for field in dataclasses.fields(thing):  # type: ignore[arg-type]
        value = getattr(thing, field.name)
        leads = field.name == thing.leading
        if not field.init or field.metadata.get("derived") or (value == field.default and not (leads and value)):
            continue
        if leads:
            changed.insert(0, str(value))
        elif isinstance(value, Named):
            inner, _, options = describe(value).partition(":")
            changed.append(f"{field.name}={inner}")
            changed += [f"{field.name}.{o}" for o in filter(None, options.split(","))]
        else:
            text = format_sizes(value) if isinstance(value, tuple) else "none" if value is None else str(value)
            changed.append(f"{field.name}={text}")
    return thing.name + (":" + ",".join(changed) if changed else "")


def require(condition: bool, message: str) -> None:
    """Raise UserError(message) unless the condition holds: validation that python -O does not remove."""
    if not condition:
        raise UserError(message)
