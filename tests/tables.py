"""Rewrite the generated parts of all READMEs: `make tables`. With `--check` only say what is stale.

A part stands between `<!-- NAME:begin -->` and `<!-- NAME:end -->`. It is made from recorded results in
outputs/reference, from the conformance suite, or from the files in tests/examples.
"""

import csv
import json
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

from conformance import mutants
from omegaconf import DictConfig

from ganbench.bench import tables as bench
from ganbench.bench.recipes import RECIPES
from ganbench.config.compose import compose_config
from ganbench.conformance import tables as conformance
from ganbench.report.compare import Method, compare_all

ROOT = Path(__file__).resolve().parent.parent
REFERENCE = ROOT / "outputs/reference"
EXAMPLES = ROOT / "tests/examples"
PART = re.compile(r"<!-- (\S+):begin -->\n.*?<!-- \1:end -->", re.DOTALL)
# Dataset, head of its column, and the factor that brings its scores to a readable size.
RESULTS = (
    ("mnist5k", "mnist5k: fd_lenet", 1),
    ("grid", "grid: energy distance × 1000", 1000),
    ("ring", "ring: energy distance × 1000", 1000),
)


def generated() -> dict[str, Callable[[], str]]:
    """Every part by the name in its markers."""
    steps_and_runs = bench.tables(_json("bench"), _json("precision"), _json("gpu"))
    return {
        "results": results,
        "soak": soak,
        "refusal": refusal,
        "recipes": recipes,
        "wrong-versions": mutants.markdown_table,
        "generator-gradient": conformance.generator_gradient_table,
        **{name: lambda text=text: text for name, text in steps_and_runs.items()},
        **{f"example-{folder.name}": lambda folder=folder: example(folder) for folder in sorted(EXAMPLES.iterdir())},
    }


def results() -> str:
    """The final scores of `make benchmark`: IQM and 95 % interval; bold where nothing is significantly better."""
    columns = [_cells(dataset, factor) for dataset, _, factor in RESULTS]
    heads = ["method", *(head for _, head, _ in RESULTS), "seconds a run, mnist5k, measured alone"]
    alone = _json("timing")["seconds"]
    rows = [[m.label, *(cells[m.label] for cells in columns), f"{alone[m.label]:.1f}"] for m in _methods("mnist5k")]
    real = ["*real data*", *(f"{_real_score(dataset) * factor:.3g}" for dataset, _, factor in RESULTS), ""]
    return markdown([heads, *rows, real])


def _real_score(dataset: str) -> float:
    """The recorded report's score of real training data."""
    found = re.search(r"Real training data score (\S+)\.", (REFERENCE / f"{dataset}.md").read_text(encoding="utf-8"))
    assert found, f"{dataset}.md gives no score of real data"
    return float(found[1])


def _cells(dataset: str, factor: float) -> dict[str, str]:
    methods = _methods(dataset)
    best = methods[0]
    beaten = {c.worse.label for c in compare_all(methods) if c.better is best and c.significant}
    cells = {}
    for method in methods:
        score = f"{factor * method.iqm:.3g}"
        assert method.interval is not None
        low, high = (f"{factor * end:.3g}" for end in method.interval)
        cells[method.label] = (score if method.label in beaten else f"**{score}**") + f" ({low} to {high})"
    return cells


def _methods(dataset: str) -> list[Method]:
    """The methods of a recorded sweep, the best first."""
    runs: dict[str, list[SimpleNamespace]] = {}
    with (REFERENCE / f"{dataset}.csv").open(encoding="utf-8") as file:
        for row in csv.DictReader(file):
            run = SimpleNamespace(seed=int(row["seed"]), final=float(row["final"]), seconds=float(row["seconds"]))
            runs.setdefault(row["method"], []).append(run)
    return sorted((Method(label, found) for label, found in runs.items()), key=lambda method: method.sort_key)


def soak() -> str:
    """The last recorded crash test."""
    found = _json("soak")
    heads = ["commit", "kills", "of them inside a save", "signals", "lock races", "runs", "runs that differ"]
    row = [found["commit"]] + [f"{found[key]:,}" for key in ("kills", "inside_a_save", "signals", "contests", "runs")]
    return markdown([heads, [*row, str(len(found["differ"]))]])


def refusal() -> str:
    """A mistyped setting, and what the program answers."""
    command = ["python", "-m", "ganbench", "loss=wgan-gp", "penalty.wieght=5"]
    answer = subprocess.run([sys.executable, *command[1:]], cwd=ROOT, capture_output=True, text=True).stderr
    return f"```\n$ {' '.join(command)}\n{answer.strip()}\n```"


def recipes() -> str:
    """The recipes of papers: what is trained for how long, and the numbers that are printed for it."""
    heads = ["`experiment=`", "paper", "data", "printed", "images of a run", "H100-hours"]
    return markdown([heads, *map(_recipe, RECIPES)])


def _recipe(name: str) -> list[str]:
    cfg = compose_config(f"experiment=paper/{name}", "name=table")
    paper = cfg.paper
    settings = paper.get("settings") or {"": cfg.protocol}
    budgets = sorted({each.images for each in settings.values()})
    images = " to ".join(f"{n:,}" for n in dict.fromkeys([budgets[0], budgets[-1]]))
    of = f"{paper.title}, [{paper.arxiv}](https://arxiv.org/abs/{paper.arxiv}), {paper.table}"
    return [f"`paper/{name}`", of, ", ".join(paper.data), _printed(paper), images, f"{paper.h100_hours:g}"]


def _printed(paper: DictConfig) -> str:
    """The published numbers, with methods if there are several; of many only how many there are."""
    rows = [row for row in paper.published if row.get("value") is not None]
    if len(rows) > 6:
        return f"{rows[0].metric} of {len(rows)} pairs of method and dataset"
    several = len({row.method for row in rows}) > 1
    return ", ".join(_number(row, several) for row in rows) or "none quoted"


def _number(row: DictConfig, with_method: bool) -> str:
    method = f"{row.method} " if with_method else ""
    spread = f" ± {row.high - row.value:.2g}" if row.get("high") is not None else ""
    return f"{method}{row.metric} {row.value:g}{spread}"


def example(folder: Path) -> str:
    """The files of an example, a fenced block each; code before options."""
    files = sorted((p for p in folder.rglob("*") if p.suffix in (".py", ".yaml")), key=lambda p: (p.suffix, p))
    return "\n\n".join(_block(file, folder) for file in files)


def _block(file: Path, folder: Path) -> str:
    language = {".py": "python", ".yaml": "yaml"}[file.suffix]
    return f"```{language}\n# {file.relative_to(folder)}\n{file.read_text(encoding='utf-8').rstrip()}\n```"


def markdown(rows: list[list[str]]) -> str:
    """A table whose first row is its head."""
    lines = ["| " + " | ".join(row) + " |" for row in rows]
    return "\n".join([lines[0], "| " + " | ".join(["---"] * len(rows[0])) + " |", *lines[1:]])


def documents() -> Iterator[Path]:
    for pattern in ("README.md", ".github/*.md", "conf/*.md", "outputs/*.md", "outputs/reference/README.md"):
        yield from sorted(ROOT.glob(pattern))
    yield from sorted(ROOT.glob("ganbench/**/README.md"))


def rewritten(text: str, parts: dict[str, Callable[[], str]]) -> str:
    return PART.sub(lambda m: f"<!-- {m[1]}:begin -->\n\n{parts[m[1]]()}\n\n<!-- {m[1]}:end -->", text)


def _json(name: str) -> dict:
    return json.loads((REFERENCE / f"{name}.json").read_text(encoding="utf-8"))


def main() -> int:
    parts, stale = generated(), []
    for file in documents():
        before = file.read_text(encoding="utf-8")
        after = rewritten(before, parts)
        if after != before:
            stale.append(file.relative_to(ROOT))
            if "--check" not in sys.argv:
                file.write_text(after, encoding="utf-8")
    for file in stale:
        print(f"{file}: tables {'are stale; run `make tables`' if '--check' in sys.argv else 'rewritten'}")
    return 1 if stale and "--check" in sys.argv else 0


if __name__ == "__main__":
    sys.exit(main())
