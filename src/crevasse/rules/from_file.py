"""A rule of the user's own, from one file of Python that need not join the project."""

import contextlib
import dataclasses
import functools
import hashlib
import inspect
import os
import sys
import traceback
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import ClassVar

from torch import Tensor

from crevasse.errors import UserError
from crevasse.rules import RULES
from crevasse.rules.base import Rule, State, Step, Update
from crevasse.rules.layout import Layout
from crevasse.rules.oracle import Asking, Oracle
from crevasse.spec import DERIVED, Entry, Table, require


@dataclass(frozen=True)
class FromFile(Rule):
    """The rule that a file of Python defines: file:my_rule.py or 'file:my_rule.py,options=lr=0.1;base.lr=0.01'.

    The file defines one frozen dataclass with a name that derives from Rule, BaseRule, Transform or Agreement; where
    it defines several, a line RULE = MyRule says which. It is run as a program when the rule is first needed: use no
    file that you have not read. Costs what its rule costs. Not for a base within other rules, even where the file's
    rule is one: for that it has to join the table (docs/add-a-rule.md), or Python uses the class itself.
    """

    name: ClassVar[str] = "file"
    leading: ClassVar[str | None] = "file"

    file: str  # path of a .py file
    options: str = ""  # of the rule in it, with semicolons between: lr=0.1;decay=0.5
    digest: str = field(default="", metadata=DERIVED)  # SHA-256 of the file; filled in: a changed file is another rule

    def __post_init__(self) -> None:
        # The config of a trial that was made before can be read where its file is gone; run it cannot be.
        if not self.digest or os.path.exists(self.file):
            object.__setattr__(self, "digest", _digest(_read(self.file, self.digest)))

    @property
    def rule(self) -> Rule:
        """The file's own rule. Raises UserError if the file is gone or changed, fails, or defines not just one."""
        # Kept apart: an instance that held it could not be sent to a process that has not read the file yet.
        return _built(self.file, self.options, self.digest)

    def init(self, weights: Tensor, layout: Layout) -> State:
        return self.rule.init(weights, layout)

    def update(self, oracle: Oracle, weights: Tensor, state: State, step: Step) -> Asking[Update]:
        return self.rule.update(oracle, weights, state, step)

    def require_model(self, layout: Layout) -> None:
        self.rule.require_model(layout)

    def microbatches(self) -> int:
        return self.rule.microbatches()

    @property
    def steers(self) -> bool:
        return self.rule.steers

    @property
    def changes(self) -> bool:
        return self.rule.changes

    def told(self, state: State) -> tuple[str, ...]:
        return self.rule.told(state)

    def judged(self, weights: Tensor, state: State) -> Tensor:
        return self.rule.judged(weights, state)


def _digest(code: bytes) -> str:
    return hashlib.sha256(code).hexdigest()


def _read(file: str, digest: str) -> bytes:
    """What stands in a file. Raises UserError where it cannot be read or has another digest than the given one."""
    try:
        code = Path(file).read_bytes()
    except OSError as e:
        raise UserError(f"{file}: {'no such file' if isinstance(e, FileNotFoundError) else e.strerror}") from None
    require(digest in ("", _digest(code)), f"{file} has changed since this trial was made (its SHA-256 is another one)")
    return code


@functools.lru_cache
def _built(file: str, options: str, digest: str) -> Rule:
    module = _module(file, digest)
    found, here = _path(file, module), f"file:{file}"
    values: dict[str, str] = {}
    for option in filter(None, options.split(";")):
        key, equals, value = option.partition("=")
        require(bool(equals), f"option {option!r} of {here} is not of the form key=value (write lr=0.1;decay=0.5)")
        values[key.strip()] = value.strip()
    table: Table[Rule] = Table("rule", {**RULES, here: Entry(found, "")})  # all of them, for its base
    with _blamed(file):
        return table.build(here, values)


def _module(file: str, digest: str) -> ModuleType:
    """The file's code, run once in a process. Dataclasses and hints look for it among the modules."""
    name = f"_crevasse_rule_{_digest(f'{digest} {file}'.encode())}"
    if name not in sys.modules:
        code, module = _read(file, digest), ModuleType(name)
        module.__file__, sys.modules[name] = file, module
        try:
            with _blamed(file):
                exec(compile(code, file, "exec", dont_inherit=True), vars(module))
        except BaseException:
            del sys.modules[name]
            raise
    return sys.modules[name]


def _path(file: str, module: ModuleType) -> str:
    """Where the rule is, as a table's entry says it. Raises UserError unless the file has one, and just one."""
    things = vars(module)
    own = {
        thing: name
        for name, thing in things.items()
        if inspect.isclass(thing) and issubclass(thing, Rule) and thing.__module__ == module.__name__
    }
    whole = [name for cls, name in own.items() if not inspect.isabstract(cls)]
    names = ["RULE"] if "RULE" in things else whole or list(own.values())
    require(bool(names), f"{file} defines no rule: a frozen dataclass that derives from crevasse.rules.Rule")
    require(
        len(names) == 1,
        f"{file} defines {len(names)} rules ({', '.join(names)}): a line such as RULE = {names[-1]} says which to use",
    )
    name, cls = names[0], things[names[0]]
    require(
        inspect.isclass(cls) and issubclass(cls, Rule) and _is_frozen(cls) and isinstance(getattr(cls, "name", 0), str),
        f"{name} of {file} must be a frozen dataclass that derives from crevasse.rules.Rule and has a name",
    )
    lacking = ", ".join(sorted(getattr(cls, "__abstractmethods__", ())))
    require(not lacking, f"{name} of {file} has to define {lacking}")
    return f"{module.__name__}:{name}"


def _is_frozen(cls: type) -> bool:
    """Is it a frozen dataclass by its own decorator? One that is not would lack its options."""
    return dataclasses.is_dataclass(cls) and bool(getattr(vars(cls).get("__dataclass_params__"), "frozen", False))


@contextlib.contextmanager
def _blamed(file: str) -> Iterator[None]:
    """What goes wrong in a user's file becomes a UserError that says where."""
    try:
        yield
    except (Exception, SystemExit) as e:
        lines = [f.lineno for f in traceback.extract_tb(e.__traceback__) if f.filename == file]
        if isinstance(e, SyntaxError) and e.filename == file:
            lines = [e.lineno]
        if isinstance(e, UserError) and not lines:
            raise
        where = f"{file}, line {lines[-1]}" if lines and lines[-1] else file
        what = str(e) if isinstance(e, UserError) else f"{type(e).__name__}: {getattr(e, 'msg', e)}"
        raise UserError(f"{where}: {what}") from e
