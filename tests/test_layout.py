"""The rooms of the package stand on each other in one order, and what refuses or reports does without torch."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import NamedTuple

import pytest
from conftest import REPOSITORY

# From the ground up. A room may import what stands below it or beside it; a test of circles keeps neighbors apart.
FLOORS = (
    (
        "errors",
        "files",
        "disk_cache",
        "randomness",
        "gpu",
        "dataset_files",
        "host_samples",
        "image_files",
        "image_folder",
        "prepared",
        "prepared_images",
        "progress",
        "interfaces",
        "theory",
        "__init__",
    ),
    ("config",),
    ("models",),
    ("losses", "penalties", "augment", "datasets"),
    ("metrics",),
    ("runs",),
    ("training",),
    ("sweeps",),
    ("report",),  # on less than what stands below it: see REPORT_STANDS_ON
    ("trained",),
    ("__main__", "sample", "export", "evaluate", "dashboard", "prepare"),
    ("bench", "conformance", "api"),
)
REPORT_STANDS_ON = {"report", "config", "theory", "errors", "files", "progress", "__init__"}
TORCH_FREE_RUNS = {f"runs.{name}" for name in ("__init__", "status", "identity", "live", "lock", "settings", "signals")}
TORCH_FREE_TRAINED = {
    f"trained.{name}" for name in ("__init__", "command_line", "folder", "evaluations", "rescore", "model_card")
}
TORCH_FREE_DASHBOARD = {"dashboard.__init__", "dashboard.__main__"}  # the others import W&B
TORCH_FREE_ROOMS = {
    *("__init__", "__main__", "sample", "export", "evaluate", "api"),
    *("errors", "files", "progress", "theory", "config", "sweeps", "report"),
    *("image_files", "prepared", "prepare"),
}
HEAVY = {"torch", "torchvision", "wandb"}


class Import(NamedTuple):
    """What one module imports, and where. Modules of the package are named without its name: `runs.lock`."""

    importer: str
    line: int
    imported: str  # `runs.lock`, or a library
    ours: bool
    on_import: bool  # rather than in a function, when it is called

    def __str__(self) -> str:
        return f"{self.importer}, line {self.line}, imports {self.imported}"


def imports(package: Path) -> list[Import]:
    """Read all imports of a package from its sources, without those for type checkers only."""
    trees = {module_name(file, package): ast.parse(file.read_text()) for file in sorted(package.rglob("*.py"))}
    return [
        Import(importer, statement.lineno, imported, ours, on_import)
        for importer, tree in trees.items()
        for statement, on_import in import_statements(tree)
        for imported, ours in targets(statement, package.name, set(trees))
    ]


def module_name(file: Path, package: Path) -> str:
    """Name a file's module; a package goes by its `__init__`."""
    return ".".join(file.relative_to(package).with_suffix("").parts)


def import_statements(node: ast.AST, on_import: bool = True) -> Iterator[tuple[ast.Import | ast.ImportFrom, bool]]:
    """Find the import statements in a piece of code, and whether they are executed when it is imported."""
    if isinstance(node, ast.Import | ast.ImportFrom):
        yield node, on_import
    for_types = isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
    inside = on_import and not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    for part in node.orelse if for_types else ast.iter_child_nodes(node):
        yield from import_statements(part, inside)


def targets(statement: ast.Import | ast.ImportFrom, package: str, modules: set[str]) -> Iterator[tuple[str, bool]]:
    """Name what a statement imports, and whether it is ours."""
    names = [alias.name for alias in statement.names]
    if isinstance(statement, ast.ImportFrom):
        assert statement.level == 0, "imports are absolute"
        names = [f"{statement.module}.{name}" for name in names]
    for name in names:
        library, _, inside = name.partition(".")
        yield (module_of(inside, modules), True) if library == package else (library, False)


def module_of(name: str, modules: set[str]) -> str:
    """Find the module in which a name lies: `runs.lock` for `runs.lock.run_lock`."""
    candidates = [name]
    while name:
        candidates.append(f"{name}.__init__")
        name = name.rpartition(".")[0]
        candidates.append(name)
    return next((candidate for candidate in candidates if candidate in modules), "__init__")


def room(module: str) -> str:
    return module.partition(".")[0]


def upward_imports(package_imports: list[Import]) -> list[str]:
    """Name the imports of a room that stands higher, and what the report imports of rooms that it does without."""
    floor = {room: number for number, rooms in enumerate(FLOORS) for room in rooms}
    return [str(each) for each in package_imports if each.ours and not is_allowed(each, floor)]


def is_allowed(each: Import, floor: dict[str, int]) -> bool:
    importer, imported = room(each.importer), room(each.imported)
    if importer == "report":
        return imported in REPORT_STANDS_ON or each.imported in TORCH_FREE_RUNS
    return floor[imported] <= floor[importer]


def import_circle(package_imports: list[Import]) -> list[str]:
    """Name the modules of a circle of imports, if there is one."""
    graph: dict[str, set[str]] = {}
    for each in package_imports:
        if each.ours and each.imported != each.importer:
            graph.setdefault(each.importer, set()).add(each.imported)
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return error.args[1]
    return []


def heavy_imports(package_imports: list[Import]) -> list[str]:
    """Name how modules that should be light import torch and its like when they are imported."""
    eager: dict[str, list[Import]] = {}
    for each in package_imports:
        if each.on_import:
            eager.setdefault(each.importer, []).append(each)
    light = sorted(module for module in eager if is_light(module))
    return [way for module in light if (way := way_to_heavy(module, eager, set()))]


def way_to_heavy(module: str, eager: dict[str, list[Import]], seen: set[str]) -> str:
    """Describe by which imports a module gets to a heavy library; empty if it does not."""
    if module in seen:
        return ""
    seen.add(module)
    for package in packages_around(module):
        if further := way_to_heavy(package, eager, seen):
            return f"{module} -> {further}"
    for each in eager.get(module, []):
        if not each.ours and each.imported in HEAVY:
            return f"{module} (line {each.line}) -> {each.imported}"
        if each.ours and (further := way_to_heavy(each.imported, eager, seen)):
            return f"{module} (line {each.line}) -> {further}"
    return ""


def packages_around(module: str) -> list[str]:
    """Name the packages that Python imports before a module: `report.__init__` before `report.load`."""
    names = module.removesuffix(".__init__").split(".")[:-1]
    return [".".join([*names[: depth + 1], "__init__"]) for depth in range(len(names))]


def is_light(module: str) -> bool:
    return room(module) in TORCH_FREE_ROOMS or module in TORCH_FREE_RUNS | TORCH_FREE_TRAINED | TORCH_FREE_DASHBOARD


PACKAGE = REPOSITORY / "ganbench"
MODULES = [module_name(file, PACKAGE) for file in sorted(PACKAGE.rglob("*.py"))]


def test_every_room_has_a_floor() -> None:
    assert {room(module) for module in MODULES} == {room for rooms in FLOORS for room in rooms}


def test_imports_run_down() -> None:
    assert upward_imports(imports(PACKAGE)) == []


def test_imports_run_in_no_circle() -> None:
    assert import_circle(imports(PACKAGE)) == []


def test_light_modules_import_no_torch() -> None:
    assert heavy_imports(imports(PACKAGE)) == []


def test_light_modules_import_no_library_that_imports_torch() -> None:
    # Hydra imports its plugins by another name, and what the fork server imports is its purpose.
    modules = [name for name in MODULES if is_light(name) and "hydra_plugins" not in name and "forkserver" not in name]
    script = "import sys\n" + "".join(f"import ganbench.{name}\n" for name in modules)
    script += f"print(*sorted({HEAVY!r} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", script], cwd=REPOSITORY, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "\n"), done.stderr


FRONT_DOOR = """
import sys
before = set(sys.modules)
import ganbench
print(*{name.partition(".")[0] for name in set(sys.modules) - before} - set(sys.stdlib_module_names))
from ganbench import *
print(run.__module__, load.__module__, compare.__module__, all(hasattr(ganbench, name) for name in dir(ganbench)))
"""


def test_importing_the_package_imports_no_library_until_its_functions_are_used() -> None:
    done = subprocess.run([sys.executable, "-c", FRONT_DOOR], cwd=REPOSITORY, capture_output=True, text=True)
    assert done.stdout.splitlines() == ["ganbench", "ganbench.api.make ganbench.api.run ganbench.api.sweep True"]


def planted(folder: Path, sources: dict[str, str]) -> list[Import]:
    """Write a small package and read its imports."""
    for name, source in sources.items():
        file = folder / f"small/{name}.py"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(source)
    return imports(folder / "small")


def test_what_is_in_order_is_not_flagged(tmp_path: Path) -> None:
    task = """
from typing import TYPE_CHECKING
if TYPE_CHECKING:
    import torch
    from small.sweeps.jobs import Job
def task():
    from small.runs.recorder import Recorder
    import torch
"""
    sources = {
        "errors": "import sys",
        "config/schema": "from small.errors import Refused",
        "runs/status": "from small import errors\nfrom small.config import schema",
        "runs/recorder": "import torch",
        "report/load": "import small.runs.status",
        "sweeps/task": task,
        "sweeps/jobs": "import small.sweeps.task",
    }
    small = planted(tmp_path, sources)
    assert len([each for each in small if each.ours]) == 6
    assert (upward_imports(small), import_circle(small), heavy_imports(small)) == ([], [], [])


@pytest.mark.parametrize(
    ("importer", "source", "imported"),
    [
        ("metrics/kid", "from small.training.train import train", "training.train"),
        ("runs/recorder", "def restore():\n    from small.training import players", "training.players"),
        ("config/schema", "class A:\n    import small.losses", "losses"),
        ("losses", "try:\n    pass\nexcept ImportError:\n    import small.runs.lock", "runs.lock"),
        ("report/load", "from small.runs.recorder import Recorder", "runs.recorder"),
        ("report/load", "from small import metrics", "metrics.__init__"),
        ("sweeps/jobs", "match 1:\n    case 1:\n        import small.report.load", "report.load"),
        ("training/train", "if True:\n    pass\nelse:\n    import small.bench.steps", "bench.steps"),
    ],
)
def test_an_upward_import_is_flagged(importer: str, source: str, imported: str, tmp_path: Path) -> None:
    sources = {imported.replace(".", "/"): "", importer: source}
    (flagged,) = upward_imports(planted(tmp_path, sources))
    assert flagged == f"{importer.replace('/', '.')}, line {len(source.splitlines())}, imports {imported}"


def test_a_circle_is_flagged(tmp_path: Path) -> None:
    inside = "def f():\n    from small.sweeps.jobs import Job"
    sources = {"sweeps/jobs": "import small.sweeps.task", "sweeps/task": inside, "errors": "import small.files"}
    small = planted(tmp_path, sources)
    assert set(import_circle(small)) == {"sweeps.jobs", "sweeps.task"}
    assert upward_imports(small) == []


@pytest.mark.parametrize(
    ("sources", "way"),
    [
        ({"errors": "import torch"}, "errors (line 1) -> torch"),
        ({"config/schema": "import os\nfrom torchvision import io"}, "config.schema (line 2) -> torchvision"),
        ({"runs/lock": "if True:\n    import wandb"}, "runs.lock (line 2) -> wandb"),
        (
            {"sweeps/jobs": "from small.training.device import choose", "training/device": "from torch import nn"},
            "sweeps.jobs (line 1) -> training.device (line 1) -> torch",
        ),
        (
            {"report/__init__": "import small.losses", "report/load": "import os", "losses": "import torch.nn"},
            "report.load -> report.__init__ (line 1) -> losses (line 1) -> torch",
        ),
    ],
)
def test_torch_is_flagged_wherever_it_comes_from(sources: dict[str, str], way: str, tmp_path: Path) -> None:
    assert way in heavy_imports(planted(tmp_path, sources))
