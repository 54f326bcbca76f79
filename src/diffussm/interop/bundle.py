"""One class and all of ours that it needs, as the source of one file that stands alone.

An exported folder must run where diffussm is not installed, so it brings the code along. It is not
written twice: from the class on, every definition of ours that is named by one already taken is
taken too, text and comments as they are. Three things change:

    imports         ours are dropped; others are gathered at the top
    shapes          jaxtyping's annotations become `Tensor`
    equal names     of two modules are told apart: legs of hippo and s4d are legs_hippo, legs_s4d

Custom operators get a namespace with a fingerprint of the file, since a process has only one
operator of a name: the package and any number of exported folders can be in it together. Formulas
that count an operator's work stay behind, and so do Triton's kernels, which functions import where
they call them: the file uses those where diffussm is installed, and plain torch elsewhere.
"""

import ast
import hashlib
import re
from dataclasses import dataclass

from diffussm import __version__
from diffussm.interop.sources import PACKAGE, TENSOR, Module, Place, read, uses


@dataclass(frozen=True)
class Bundle:
    """The file, and a fingerprint of what is in it."""

    source: str
    fingerprint: str


def bundle(module: str, name: str) -> Bundle:
    """The source of a file that defines the class `name` of `module`, and nothing it does not need.

    Running it a second time in the same module, as diffusers does at every load, changes nothing.
    """
    reached = _reached(Place(module, name))
    order = [place for place in _modules(module) if any(each.module == place for each in reached)]
    names = _names(reached)
    texts, statements = [], {"from torch import Tensor"}
    for each in order:
        text, imports = _written(each, names)
        texts.append(text)
        statements |= imports
    body = "\n\n".join(["\n".join(sorted(statements, key=_import_order)), *texts])
    indented = "\n".join("    " + line if line else "" for line in body.splitlines())
    source = (
        f'"""{name}, made from the sources of diffussm {__version__} (Apache License 2.0)."""\n\n'
        f'if "{name}" not in globals():  # diffusers runs this file anew at every load\n'
        f"{indented}\n"
    )
    fingerprint = hashlib.sha256(source.encode()).hexdigest()[:8]
    return Bundle(source.replace(f'"{PACKAGE}::', f'"{PACKAGE}_{fingerprint}::'), fingerprint)


def _reached(start: Place) -> set[Place]:
    reached, waiting = set(), [start]
    while waiting:
        place = waiting.pop()
        if place in reached:
            continue
        reached.add(place)
        for owner, statement in read(place.module).parts:
            if owner == place.name:
                found = [target for _, target in uses(place.module, statement)]
                waiting += [target for target in found if isinstance(target, Place)]
    return reached


def _modules(start: str) -> list[str]:
    """A module and all of ours that it imports, each after those it imports itself."""
    order: list[str] = []

    def visit(name: str) -> None:
        if name not in order:
            for source, _ in read(name).imports.values():
                visit(source)
            order.append(name)

    visit(start)
    return order


def _names(reached: set[Place]) -> dict[Place, str]:
    """A name for each definition that no other has."""
    taken = [place.name for place in reached]
    for place in reached:
        taken += read(place.module).externals
    return {
        place: place.name
        if taken.count(place.name) == 1
        else f"{place.name}_{place.module.rsplit('.', 1)[-1]}"
        for place in reached
    }


def _written(module: str, names: dict[Place, str]) -> tuple[str, set[str]]:
    """The taken parts of a module, and the imports they need."""
    here = read(module)
    texts = [_text(here, here.docstring, [])] if here.docstring else []
    statements = set()
    for owner, statement in here.parts:
        place = Place(module, owner)
        if place not in names:
            continue
        edits = []
        for node, target in uses(module, statement):
            if isinstance(target, Place):
                edits.append((node, names[target]))
            elif target.statement == TENSOR:
                edits.append((node, TENSOR))
            else:
                statements.add(target.statement)
        text = _text(here, statement, edits)
        if names[place] != owner:  # where it is defined, its name is no use of it
            text = re.sub(rf"(?m)^(def |class |){owner}\b", rf"\g<1>{names[place]}", text, count=1)
        texts.append(text)
    return "\n\n".join(texts), statements


def _text(module: Module, statement: ast.stmt, edits: list[tuple[ast.expr, str]]) -> str:
    """A statement as it stands in its file, with the comment above it, after the edits."""
    assert statement.end_lineno is not None
    first = min([statement.lineno, *(d.lineno for d in getattr(statement, "decorator_list", ()))])
    lines = list(module.lines)
    for node, text in sorted(edits, key=lambda edit: (edit[0].lineno, edit[0].col_offset))[::-1]:
        row, last = node.lineno - 1, (node.end_lineno or 0) - 1
        rest = lines[last][node.end_col_offset :]
        lines[row] = lines[row][: node.col_offset] + text.encode() + rest
        lines[row + 1 : last + 1] = [b""] * (last - row)
    while first > 1 and lines[first - 2].startswith(b"#"):
        first -= 1
    return b"\n".join(lines[first - 1 : statement.end_lineno]).decode()


def _import_order(statement: str) -> tuple[bool, str]:
    return statement.startswith("from"), statement
