"""Signatures read from Python source, without importing it: what a `_target_` takes is known before torch is."""

import ast
import importlib.util
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

from omegaconf import ListConfig


class NoSuchTarget(LookupError):
    """There is nothing of that name; says what is missing."""


class Argument(NamedTuple):
    annotation: ast.expr | None
    required: bool


@lru_cache
def signature(target: str) -> dict[str, Argument] | None:
    """The arguments of the class or function `target`, such as `ganbench.losses.LSGAN`.

    None where they cannot be read off, as for `**kwargs`; the constructor will judge those. Raises NoSuchTarget.
    """
    module, _, name = target.rpartition(".")
    return _arguments(_definition(module, name))


def accepts_argument(option: Mapping[str, Any], argument: str) -> bool:
    """Whether what `option` names is known to take this argument."""
    return argument in (signature(option["_target_"]) or {})


def _definition(module: str, name: str) -> ast.stmt | None:
    """Where `name` of `module` is defined, followed through imports; None if it is an alias of something else."""
    file = module_file(module)
    for node in ast.parse(file.read_text(encoding="utf-8")).body:
        if getattr(node, "name", None) == name:
            return node
        if isinstance(node, ast.ImportFrom):
            package = module if file.name == "__init__.py" else module.rpartition(".")[0]
            origin = ".".join(filter(None, [package.rsplit(".", node.level - 1)[0], node.module]))
            for alias in node.names:
                if name == (alias.asname or alias.name):
                    return _definition(origin if node.level else node.module, alias.name)
        if isinstance(node, ast.Assign) and any(ast.unparse(t) == name for t in node.targets):
            return None
    raise NoSuchTarget(f"{module} defines no {name!r}")


def module_file(module: str) -> Path:
    """The file of a module, found without importing the packages above it."""
    top, *below = module.split(".")
    spec = importlib.util.find_spec(top) if top else None
    folders = (spec and spec.submodule_search_locations) or ()
    if spec and not folders and not below and str(spec.origin).endswith(".py"):
        return Path(spec.origin)
    for folder in folders:
        at = Path(folder, *below)
        for file in (at.with_suffix(".py") if below else at / "__init__.py", at / "__init__.py"):
            if file.is_file():
                return file
    raise NoSuchTarget(f"there is no module {module!r} of Python source")


def _arguments(definition: ast.stmt | None) -> dict[str, Argument] | None:
    if definition is None:
        return None
    if isinstance(definition, ast.FunctionDef):
        if definition.args.kwarg:
            return None
        return _of_function(definition.args)
    for part in definition.body:
        if isinstance(part, ast.FunctionDef) and part.name == "__init__":
            return _arguments(part)
    if any("dataclass" in ast.unparse(d) for d in definition.decorator_list):
        fields = [p for p in definition.body if isinstance(p, ast.AnnAssign)]
        return {p.target.id: Argument(p.annotation, p.value is None) for p in fields}
    return None if definition.bases else {}


def _of_function(arguments: ast.arguments) -> dict[str, Argument]:
    listed = arguments.posonlyargs + arguments.args
    defaults = [None] * (len(listed) - len(arguments.defaults)) + arguments.defaults
    pairs = [*zip(listed, defaults, strict=True), *zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True)]
    return {a.arg: Argument(a.annotation, default is None) for a, default in pairs if a.arg != "self"}


def fits_annotation(value: Any, annotation: ast.expr | None) -> bool:
    """Whether a value from YAML may stand for an argument annotated so. What is not plain data always may."""
    match annotation:
        case ast.BinOp(left=left, op=ast.BitOr(), right=right):
            return fits_annotation(value, left) or fits_annotation(value, right)
        case ast.Constant(value=None):
            return value is None
        case ast.Name(id="bool"):
            return isinstance(value, bool)
        case ast.Name(id="int"):
            return isinstance(value, int) and not isinstance(value, bool)
        case ast.Name(id="float"):
            return isinstance(value, int | float) and not isinstance(value, bool)
        case ast.Name(id="str"):
            return isinstance(value, str)
        case ast.Subscript(value=ast.Name(id="Literal"), slice=allowed):
            return value in ast.literal_eval(allowed)
        case ast.Subscript(value=ast.Name(id="tuple" | "list"), slice=inner):
            kinds = inner.elts if isinstance(inner, ast.Tuple) else [inner]
            if not isinstance(value, ListConfig | list | tuple):
                return False
            if isinstance(kinds[-1], ast.Constant) and kinds[-1].value is ...:
                kinds = kinds[:1] * len(value)
            if ast.unparse(annotation).startswith("list"):
                kinds = kinds[:1] * len(value)
            return len(kinds) == len(value) and all(map(fits_annotation, value, kinds))
    return True
