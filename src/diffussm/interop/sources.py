"""Our own source files taken apart: what each defines and imports, and which names it uses."""

import ast
from dataclasses import dataclass, field
from functools import cache
from importlib.util import find_spec
from pathlib import Path

PACKAGE = "diffussm"
TENSOR = "Tensor"
"""What stands for every annotation of shapes."""


@dataclass(frozen=True)
class Place:
    """A definition of ours."""

    module: str
    name: str


@dataclass(frozen=True)
class External:
    """A name from somebody else's package, and the import that binds it."""

    statement: str


@dataclass
class Module:
    """One file of ours, taken apart."""

    lines: list[bytes]
    docstring: ast.stmt | None = None
    imports: dict[str, tuple[str, str]] = field(default_factory=dict)
    """Ours: local name -> (module, name in it, or "" for the module itself)."""
    externals: dict[str, External] = field(default_factory=dict)
    parts: list[tuple[str, ast.stmt]] = field(default_factory=list)
    """Statements in order, each with the definition that it makes or belongs to."""
    shapes: set[str] = field(default_factory=set)
    """Names that stand for a jaxtyping annotation."""


@cache
def read(name: str) -> Module:
    """The file of the module `name`."""
    spec = find_spec(name)
    assert spec is not None
    assert spec.origin is not None
    source = Path(spec.origin).read_bytes()
    module = Module(source.splitlines())
    body = ast.parse(source).body
    if body and _is_text(body[0]):
        module.docstring = body.pop(0)
    owner = ""
    for statement in body:
        # in a try stands an import with a sentence for its absence
        for each in statement.body if isinstance(statement, ast.Try) else [statement]:
            if isinstance(each, ast.Import | ast.ImportFrom):
                _import(module, each)
            else:
                # a docstring belongs to what stands before it
                owner = owner if _is_text(each) else _owner(each)
                module.parts.append((owner, each))
    for owner, each in module.parts:
        if isinstance(each, ast.Assign) and _is_shape(each.value, module):
            module.shapes.add(owner)
    return module


def _import(module: Module, statement: ast.Import | ast.ImportFrom) -> None:
    for alias in statement.names:
        local = alias.asname or alias.name
        renamed = f" as {alias.asname}" if alias.asname else ""
        if isinstance(statement, ast.Import):
            module.externals[local.split(".")[0]] = External(f"import {alias.name}{renamed}")
            continue
        source = statement.module or ""
        if source.split(".")[0] != PACKAGE:
            module.externals[local] = External(f"from {source} import {alias.name}{renamed}")
        elif find_spec(source + "." + alias.name) if _is_package(source) else None:
            module.imports[local] = (f"{source}.{alias.name}", "")
        else:
            module.imports[local] = (source, alias.name)


def _is_package(name: str) -> bool:
    spec = find_spec(name)
    return spec is not None and spec.submodule_search_locations is not None


def _is_text(statement: ast.stmt) -> bool:
    value = statement.value if isinstance(statement, ast.Expr) else None
    return isinstance(value, ast.Constant) and isinstance(value.value, str)


def _is_shape(value: ast.expr, module: Module) -> bool:
    if not isinstance(value, ast.Subscript) or not isinstance(value.value, ast.Name):
        return False
    origin = module.externals.get(value.value.id)
    return origin is not None and origin.statement.startswith("from jaxtyping ")


def _owner(statement: ast.stmt) -> str:
    """What a statement defines, or, of a registration, what it is registered with."""
    if isinstance(statement, ast.FunctionDef | ast.ClassDef) and statement.name != "_":
        return statement.name
    if isinstance(statement, ast.Assign | ast.AnnAssign):
        target = statement.targets[0] if isinstance(statement, ast.Assign) else statement.target
        assert isinstance(target, ast.Name)
        return target.id
    if isinstance(statement, ast.FunctionDef):
        head: ast.AST = statement.decorator_list[0]
    else:
        assert isinstance(statement, ast.Expr), ast.unparse(statement)
        head = statement.value
    while not isinstance(head, ast.Name):
        head = next(ast.iter_child_nodes(head))
    return head.id


def _resolve(module: str, name: str) -> Place | External | None:
    """What a global name of a module means; None for Python's own, `TENSOR` for a shape."""
    here = read(module)
    if name in here.shapes:
        return External(TENSOR)
    if any(owner == name for owner, _ in here.parts):
        return Place(module, name)
    if name in here.imports:
        source, inner = here.imports[name]
        return _resolve(source, inner) if inner else Place(source, "")
    return here.externals.get(name)


def uses(module: str, statement: ast.stmt) -> list[tuple[ast.expr, Place | External]]:
    """Every use of a global name, or of an annotation of shapes, in a statement of a module."""
    finder = _Finder(module)
    finder.visit(statement)
    return finder.found


class _Finder(ast.NodeVisitor):
    """Walks one statement, minding which names are local."""

    def __init__(self, module: str):
        self.module = module
        self.found: list[tuple[ast.expr, Place | External]] = []
        self.hidden: list[set[str]] = []
        """Names bound in the functions around, by which a global is not meant."""

    def visit_Name(self, node: ast.Name) -> None:
        if isinstance(node.ctx, ast.Load) and not any(node.id in names for names in self.hidden):
            target = _resolve(self.module, node.id)
            if target is not None:
                self.found.append((node, target))

    def visit_Subscript(self, node: ast.Subscript) -> None:
        if _is_shape(node, read(self.module)):
            self.found.append((node, External(TENSOR)))
        else:
            self.generic_visit(node)

    def visit_Attribute(self, node: ast.Attribute) -> None:
        if isinstance(node.value, ast.Name):
            source, inner = read(self.module).imports.get(node.value.id, ("", "none"))
            if not inner:
                target = _resolve(source, node.attr)
                assert target is not None
                self.found.append((node, target))
                return
        self.generic_visit(node)

    def visit_FunctionDef(self, node: ast.FunctionDef) -> None:
        arguments = node.args
        around = [*node.decorator_list, *arguments.defaults, *arguments.kw_defaults, node.returns]
        every = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs]
        around += [each.annotation for each in every]
        for each in around:
            if each is not None:
                self.visit(each)
        self._inside(node, node.body)

    def visit_Lambda(self, node: ast.Lambda) -> None:
        self._inside(node, [node.body])

    def _inside(self, function: ast.FunctionDef | ast.Lambda, body: list) -> None:
        bound = {each.arg for each in ast.walk(function.args) if isinstance(each, ast.arg)}
        for statement in body:
            for each in ast.walk(statement):
                if isinstance(each, ast.Name) and isinstance(each.ctx, ast.Store):
                    bound.add(each.id)
                elif isinstance(each, ast.FunctionDef):
                    bound.add(each.name)
        self.hidden.append(bound)
        for statement in body:
            self.visit(statement)
        self.hidden.pop()

    def visit_ClassDef(self, node: ast.ClassDef) -> None:
        for each in [*node.decorator_list, *node.bases, *node.body]:
            self.visit(each)
