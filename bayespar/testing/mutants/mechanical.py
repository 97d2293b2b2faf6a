"""Mutants made by machine: one operator, index, axis or constant of a real module changed, and the module run anew.

The changed source is executed as a fresh module, and so is every module that imports it; the installed ones stay as
they are. The catalogue follows the source: it changes when the source does.

Source of the idea: DeMillo, Lipton and Sayward (1978), "Hints on test data selection".
"""

from __future__ import annotations

import ast
import builtins
import copy
import functools
import importlib
import importlib.util
import types
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

_PACKAGE = __name__.split(".")[0]


@dataclass(frozen=True)
class Mutation:
    """One change of one module.

    Attributes:
        module: its name without the package's, e.g. "posterior.exact".
        function: where in it; "Class.method" for methods.
        number: which of the function's possible changes.
        kind: "operator", "operand", "comparison", "constant", "slice", "call" or "branch".
        before, after: the statement, as source, before and after.
    """

    module: str
    function: str
    number: int
    kind: str
    before: str
    after: str


# What stands in for what, one way or both.
_OPERATORS = {
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Add, ast.Div: ast.Mult, ast.FloorDiv: ast.Mult,
    ast.BitAnd: ast.BitOr, ast.BitOr: ast.BitAnd, ast.MatMult: ast.Mult, ast.Mod: ast.FloorDiv,
}  # fmt: skip
_COMPARISONS = {
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq,
}  # fmt: skip
_CALLS = {
    "max": "min", "min": "max", "argmax": "argmin", "argmin": "argmax", "sum": "max", "zeros": "ones", "ones": "zeros",
    "cumsum": "asarray", "exp": "log", "log": "exp", "any": "all", "all": "any", "zeros_like": "ones_like",
}  # fmt: skip


def _changes(node: ast.AST) -> Iterator[tuple[str, Callable[[Any], ast.AST]]]:
    """(kind, change) for everything that may be done to one node; a change takes a copy of it."""
    if isinstance(node, ast.BinOp):
        if type(node.op) in _OPERATORS:
            yield "operator", lambda n: ast.BinOp(n.left, _OPERATORS[type(n.op)](), n.right)
            yield "operand", lambda n: n.left
            yield "operand", lambda n: n.right
    elif isinstance(node, ast.Compare) and len(node.ops) == 1 and type(node.ops[0]) in _COMPARISONS:
        yield "comparison", lambda n: ast.Compare(n.left, [_COMPARISONS[type(n.ops[0])]()], n.comparators)
    elif isinstance(node, ast.Constant) and type(node.value) is bool:
        yield "constant", lambda n: ast.Constant(not n.value)
    elif isinstance(node, ast.Constant) and type(node.value) is int:
        yield "constant", lambda n: ast.Constant(n.value + 1)
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, (ast.USub, ast.Not)):
        yield "operator", lambda n: n.operand
    elif isinstance(node, ast.Slice):
        if node.lower is not None:
            yield "slice", lambda n: ast.Slice(None, n.upper, n.step)
        if node.upper is not None:
            yield "slice", lambda n: ast.Slice(n.lower, None, n.step)
    elif isinstance(node, ast.IfExp):
        yield "branch", lambda n: n.body
        yield "branch", lambda n: n.orelse
    elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in _CALLS:
        swapped = _CALLS[node.func.attr]
        yield "call", lambda n: ast.Call(ast.Attribute(n.func.value, swapped, ast.Load()), n.args, n.keywords)


def _sites(statement: ast.stmt) -> Iterator[tuple[tuple[Any, ...], ast.AST]]:
    """(path, node) of every expression in a statement, its nested statements left to themselves."""

    def walk(node: ast.AST, path: tuple[Any, ...]) -> Iterator[tuple[tuple[Any, ...], ast.AST]]:
        yield path, node
        for name, value in ast.iter_fields(node):
            if name in ("annotation", "returns", "decorator_list"):
                continue
            for i, child in enumerate(value if isinstance(value, list) else [value]):
                if isinstance(child, ast.AST) and not isinstance(child, (ast.stmt, ast.arguments)):
                    yield from walk(child, (*path, (name, i if isinstance(value, list) else None)))

    yield from walk(statement, ())


def _statements(body: list[ast.stmt]) -> Iterator[ast.stmt]:
    """Every statement, nested ones too, without docstrings, errors and imports."""
    for statement in body:
        if isinstance(statement, (ast.Raise, ast.Import, ast.ImportFrom, ast.Assert)):
            continue
        if isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant):
            continue
        yield statement
        for name in ("body", "orelse", "finalbody"):
            yield from _statements(getattr(statement, name, []))


def _function(tree: ast.Module, name: str) -> ast.FunctionDef:
    scope: Any = tree
    for part in name.split("."):
        scope = next(n for n in scope.body if getattr(n, "name", None) == part)
    return scope


@functools.cache
def _tree(module: str) -> ast.Module:
    spec = importlib.util.find_spec(f"{_PACKAGE}.{module}")
    if spec is None or spec.origin is None:
        raise KeyError(f"there is no module {module}")
    with open(spec.origin, encoding="utf-8") as file:
        return ast.parse(file.read())


def _head(statement: ast.stmt) -> str:
    """A statement as source, without the body of a compound one."""
    return ast.unparse(statement).splitlines()[0] if hasattr(statement, "body") else ast.unparse(statement)


def mutations(module: str, function: str) -> list[Mutation]:
    """Every change that can be made to one function of one module, in order of appearance."""
    return [mutation for mutation, _ in _mutated(module, function)]


def _mutated(module: str, function: str) -> Iterator[tuple[Mutation, ast.Module]]:
    original, number = _tree(module), 0
    for place, statement in enumerate(_statements(_function(original, function).body)):
        for path, node in _sites(statement):
            for kind, change in _changes(node):
                tree = copy.deepcopy(original)
                target: Any = list(_statements(_function(tree, function).body))[place]
                changed, parent = target, None
                for name, index in path:
                    parent = (changed, name, index)
                    changed = getattr(changed, name) if index is None else getattr(changed, name)[index]
                if parent is None:
                    continue
                owner, name, index = parent
                if index is None:
                    setattr(owner, name, change(changed))
                else:
                    getattr(owner, name)[index] = change(changed)
                mutation = Mutation(module, function, number, kind, _head(statement), _head(target))
                number += 1
                yield mutation, ast.fix_missing_locations(tree)


def load(mutation: Mutation) -> Callable[[str], types.ModuleType]:
    """A loader of modules ("posterior.exact") in which ``mutation`` is made.

    Raises:
        KeyError: the source has changed, and there is no such mutation any more.
    """
    for candidate, tree in _mutated(mutation.module, mutation.function):
        if candidate == mutation:
            return _Loader(f"{_PACKAGE}.{mutation.module}", tree)
    raise KeyError(f"no such mutation in the source: {mutation}")


class _Loader:
    """Executes the changed module and every module that depends on it; takes the others as they are."""

    def __init__(self, target: str, tree: ast.Module):
        self.target, self.tree = target, tree
        self.loaded: dict[str, types.ModuleType] = {}

    def __call__(self, name: str) -> types.ModuleType:
        return self._load(f"{_PACKAGE}.{name}")

    def _load(self, name: str) -> types.ModuleType:
        if self.target not in _dependencies(name):
            return importlib.import_module(name)
        if name not in self.loaded:
            real = importlib.import_module(name)
            module = types.ModuleType(name)
            module.__dict__.update(__file__=real.__file__, __package__=real.__package__)
            module.__dict__["__builtins__"] = {**vars(builtins), "__import__": self._import}
            self.loaded[name] = module
            tree = self.tree if name == self.target else _tree(name.removeprefix(f"{_PACKAGE}."))
            exec(compile(tree, f"<mutant of {name}>", "exec"), module.__dict__)
        return self.loaded[name]

    def _import(self, name: str, globals: Any = None, locals: Any = None, fromlist: Any = (), level: int = 0) -> Any:
        if level:
            return self._load(importlib.util.resolve_name("." * level + name, globals["__package__"]))
        return builtins.__import__(name, globals, locals, fromlist, level)


@functools.cache
def _dependencies(name: str) -> frozenset[str]:
    """A module and all modules of the package that it imports, directly or not."""
    found = {name}
    spec = importlib.util.find_spec(name)
    if spec is None or spec.submodule_search_locations is not None:
        return frozenset(found)
    for node in _tree(name.removeprefix(f"{_PACKAGE}.")).body:
        if isinstance(node, ast.ImportFrom) and node.level:
            package = name.rpartition(".")[0]
            found |= _dependencies(importlib.util.resolve_name("." * node.level + (node.module or ""), package))
    return frozenset(found)
