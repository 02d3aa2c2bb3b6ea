"""Read signatures from Python source without importing it, so that a `_target_` is checked before torch is imported."""

import ast
import importlib.util
from collections.abc import Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

from omegaconf import ListConfig


class NoSuchTarget(LookupError):
    """There is no such module, class or function; the message says which is missing."""


class Argument(NamedTuple):
    annotation: ast.expr | None
    required: bool


@lru_cache
def signature(target: str) -> dict[str, Argument] | None:
    """Return the arguments of the class or function `target`, such as `ganbench.losses.LSGAN`.

    None where source does not say, as for `**kwargs`: then the constructor judges them. Raises NoSuchTarget.
    """
    module, _, name = target.rpartition(".")
    if not module:
        raise NoSuchTarget("it must be a module and a name in it, such as mine.Relaxed")
    return _arguments(_definition(module, name))


def accepts_argument(option: Mapping[str, Any], argument: str) -> bool:
    """Tell whether the `_target_` of an option is known to take this argument."""
    return argument in (signature(option["_target_"]) or {})


def _definition(module: str, name: str) -> ast.stmt | None:
    """Find where `name` of `module` is defined, through imports; None if it is an alias of something else."""
    file = module_file(module)
    for node in _parsed(file).body:
        if getattr(node, "name", None) == name:
            return node
        if isinstance(node, ast.ImportFrom):
            for alias in node.names:
                if name == (alias.asname or alias.name):
                    return _definition(_imported_module(node, module, file), alias.name)
        if isinstance(node, ast.Assign) and any(ast.unparse(target) == name for target in node.targets):
            return None
    raise NoSuchTarget(f"{module} defines no {name!r}")


def _parsed(file: Path) -> ast.Module:
    try:
        return ast.parse(file.read_bytes())  # which may say their encoding
    except SyntaxError as error:
        raise NoSuchTarget(f"{file}, line {error.lineno}: {error.msg}") from None


def _imported_module(node: ast.ImportFrom, module: str, file: Path) -> str:
    """Return the absolute name of the module that `from ... import` names, relative to `module` or not."""
    if not node.level:
        return node.module or ""
    package = module if file.name == "__init__.py" else module.rpartition(".")[0]
    parent = package.rsplit(".", node.level - 1)[0]
    return ".".join(filter(None, [parent, node.module]))


def imported_modules(module: str, file: Path) -> Iterator[str]:
    """Yield the modules that a file imports, anywhere in it; of `from a import b` both `a` and `a.b`.

    None for a file that Python cannot read: whoever imports it says so.
    """
    try:
        tree = ast.parse(file.read_bytes())
    except (SyntaxError, ValueError, OSError):
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        if isinstance(node, ast.ImportFrom):
            parent = _imported_module(node, module, file)
            yield parent
            yield from (f"{parent}.{alias.name}" for alias in node.names)


def module_file(module: str) -> Path:
    """Find the file of a module without importing the packages above it."""
    top, *below = module.split(".")
    spec = importlib.util.find_spec(top) if top else None
    folders = (spec and spec.submodule_search_locations) or ()
    if spec and spec.origin and not folders and not below and spec.origin.endswith(".py"):
        return Path(spec.origin)
    for folder in folders:
        path = Path(folder, *below)
        for file in (path.with_suffix(".py") if below else path / "__init__.py", path / "__init__.py"):
            if file.is_file():
                return file
    raise NoSuchTarget(f"there is no module {module!r} of Python source")


def _arguments(definition: ast.stmt | None) -> dict[str, Argument] | None:
    if isinstance(definition, ast.FunctionDef):
        return None if definition.args.kwarg else _function_arguments(definition.args)
    if isinstance(definition, ast.ClassDef):
        return _class_arguments(definition)
    return None


def _class_arguments(definition: ast.ClassDef) -> dict[str, Argument] | None:
    for statement in definition.body:
        if isinstance(statement, ast.FunctionDef) and statement.name == "__init__":
            return _arguments(statement)
    if definition.bases:
        return None
    if any("dataclass" in ast.unparse(decorator) for decorator in definition.decorator_list):
        fields = [statement for statement in definition.body if isinstance(statement, ast.AnnAssign)]
        return {ast.unparse(field.target): Argument(field.annotation, field.value is None) for field in fields}
    return {}


def _function_arguments(arguments: ast.arguments) -> dict[str, Argument]:
    positional = arguments.posonlyargs + arguments.args
    without_default = len(positional) - len(arguments.defaults)
    defaults = [*[None] * without_default, *arguments.defaults, *arguments.kw_defaults]
    listed = zip([*positional, *arguments.kwonlyargs], defaults, strict=True)
    return {arg.arg: Argument(arg.annotation, default is None) for arg, default in listed if arg.arg != "self"}


def fits_annotation(value: Any, annotation: ast.expr | None) -> bool:
    """Tell whether a value from YAML fits an annotation. One that is not about plain data fits every value."""
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
        case ast.Subscript(value=ast.Name(id="tuple" | "list")):
            return _fits_sequence(value, annotation)
    return True


def _fits_sequence(value: Any, annotation: ast.Subscript) -> bool:
    """Tell whether a list fits `list[kind]`, `tuple[kind, ...]` or `tuple[kind, kind]`."""
    if not isinstance(value, ListConfig | list | tuple):
        return False
    kinds = _item_kinds(annotation)
    if _has_any_length(annotation):
        kinds = kinds[:1] * len(value)
    return len(kinds) == len(value) and all(map(fits_annotation, value, kinds))


def _item_kinds(annotation: ast.Subscript) -> list[ast.expr]:
    return annotation.slice.elts if isinstance(annotation.slice, ast.Tuple) else [annotation.slice]


def _has_any_length(annotation: ast.Subscript) -> bool:
    last = _item_kinds(annotation)[-1]
    return ast.unparse(annotation.value) == "list" or (isinstance(last, ast.Constant) and last.value is ...)


WORDS = {"bool": "true or false", "int": "a whole number", "float": "a number", "str": "a text", "None": "null"}


def annotation_words(annotation: ast.expr) -> str:
    """Say in words what fits an annotation."""
    match annotation:
        case ast.BinOp(left=left, op=ast.BitOr(), right=right):
            kinds = [kind for kind in (left, right) if ast.unparse(kind) != "Tensor"]  # no YAML has one
            words = [annotation_words(kind) for kind in kinds]
            return " or ".join(words)
        case ast.Subscript(value=ast.Name(id="Literal"), slice=allowed):
            values = ast.literal_eval(allowed)
            return "one of: " + ", ".join(map(str, values)) if isinstance(values, tuple) else str(values)
        case ast.Subscript(value=ast.Name(id="tuple" | "list")):
            items = [annotation_words(kind) for kind in _item_kinds(annotation)]
            return f"a list, each {items[0]}" if _has_any_length(annotation) else f"a list [{', '.join(items)}]"
    written = ast.unparse(annotation)
    return WORDS.get(written, written)
