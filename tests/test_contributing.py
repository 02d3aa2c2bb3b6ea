"""The examples of README and CONTRIBUTING run as written: their files through the commands shown beside them."""

import re
import shlex
import shutil
from pathlib import Path

import pytest
from conftest import REPOSITORY, ganbench

pytestmark = pytest.mark.slow

EXAMPLES = REPOSITORY / "tests/examples"
CONTRIBUTING = (REPOSITORY / ".github/CONTRIBUTING.md").read_text(encoding="utf-8")
TINY = ("wandb=disabled", "device=cpu", "name=own")


def commands(kind: str) -> list[list[str]]:
    """The arguments after `python` of every command in the section on this kind."""
    section = CONTRIBUTING.split(f"### Add a {kind}\n")[1].split("\n## ")[0].split("\n### ")[0]
    return [shlex.split(line)[1:] for line in re.findall(r"^python .*$", section, re.MULTILINE)]


@pytest.mark.parametrize("kind", sorted(folder.name for folder in EXAMPLES.iterdir()))
def test_example_runs_with_the_commands_shown(kind: str, tmp_path: Path) -> None:
    folder = shutil.copytree(EXAMPLES / kind, tmp_path / kind)
    shown = commands(kind)
    assert shown, f"CONTRIBUTING shows no command for a {kind}"
    for command in shown:
        trains = command[:2] == ["-m", "ganbench"]
        done = ganbench(*command[2:], *(TINY if trains else ()), cwd=folder, module=command[1])
        assert done.returncode == 0, done.stdout + done.stderr
        assert not trains or '"status": "finished"' in (folder / "outputs/run/own/status.json").read_text()


def test_every_link_leads_to_a_file() -> None:
    """Relative links of all documents, and the headings that they name."""
    lost = []
    for document in documents():
        for target in re.findall(r"\]\(([^)\s]+)\)", document.read_text(encoding="utf-8")):
            if target.startswith(("https://", "http://")):
                continue
            path, _, heading = target.partition("#")
            file = (document.parent / path).resolve() if path else document
            if not file.exists() or (heading and heading not in anchors(file)):
                lost.append(f"{document.relative_to(REPOSITORY)}: {target}")
    assert lost == []


def documents() -> list[Path]:
    skipped = (".venv", "build", "node_modules")
    return [p for p in REPOSITORY.rglob("*.md") if not set(skipped) & set(p.relative_to(REPOSITORY).parts)]


def anchors(file: Path) -> set[str]:
    """Headings as GitHub names them: lower case, spaces as hyphens, without punctuation."""
    headings = re.findall(r"^#+ (.*)$", file.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
