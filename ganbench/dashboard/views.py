"""Build what Weights & Biases shows of a sweep: a workspace, one more of its trials, and a report. Needs no server."""

import json
import unicodedata
from pathlib import Path
from typing import Any, NamedTuple

import wandb_workspaces.reports.v2 as wr
import wandb_workspaces.workspaces as ws

from ganbench.dashboard import panels
from ganbench.report.load import Run
from ganbench.report.study import Study
from ganbench.runs.wandb_privacy import without_names


class Place(NamedTuple):
    """The project at W&B that has the runs."""

    entity: str  # empty where nobody has asked W&B yet
    project: str


class Part(NamedTuple):
    """A section of a workspace or a report."""

    title: str
    panels: panels.Panels
    columns: int = 2
    is_open: bool = True


class View(NamedTuple):
    """A page at W&B that can be saved: a workspace or a report."""

    name: str
    kind: str
    page: Any

    def specification(self) -> dict[str, Any]:
        """Return what W&B is sent of it."""
        return json.loads(self.page._to_model().spec.model_dump_json(by_alias=True, exclude_none=True))


def build(study: Study, sweep: Path, place: Place) -> list[View]:
    """Return the views of one dataset of the sweep in this folder."""
    of_part = f" {study.dataset}" if study.folder != sweep else ""
    name = _allowed(f"ganbench {sweep.resolve().name}{of_part}")
    views = [View(name, "workspace", _workspace(study, name, place))]
    if study.trials:
        views.append(View(f"{name} trials", "workspace", _workspace_of_trials(study, f"{name} trials", place)))
    return [*views, View(name, "report", _report(study, name, place))]


def _parts(study: Study) -> list[Part]:
    """Return what is drawn of the runs that are compared. Called for each view, since panels know where they are."""
    parts = [
        Part("Scores", panels.score_panels(study)),
        Part("Losses and gradients", panels.loss_panels(study)),
        Part("Samples of the same latents", panels.sample_panels(), columns=1),
        Part("Other scores", panels.other_score_panels(study), is_open=False),
        Part("Compare runs", panels.comparison_panels(), columns=1, is_open=False),
    ]
    return [part for part in parts if part.panels]


def _part_of_trials(study: Study) -> Part:
    return Part("Trials", panels.trial_panels(study), columns=1)


def _workspace(study: Study, name: str, place: Place) -> ws.Workspace:
    return _workspace_of(study.compared_runs, name, place, _parts(study))


def _workspace_of_trials(study: Study, name: str, place: Place) -> ws.Workspace:
    """Return a workspace of its own, because all panels of a workspace show the same runs."""
    return _workspace_of(study.all_trials, name, place, [_part_of_trials(study)])


def _workspace_of(runs: list[Run], name: str, place: Place, parts: list[Part]) -> ws.Workspace:
    columns = [f"summary:{key}" for key in ("score", "score_best", "status", "seconds")]
    return ws.Workspace(
        entity=place.entity,
        project=place.project,
        name=name,
        sections=[_section(part) for part in parts],
        settings=ws.WorkspaceSettings(x_axis="images", max_runs=len(runs)),
        runset_settings=ws.RunsetSettings(
            filters=_only(runs), order=[ws.Ordering(ws.Summary("score"), ascending=True)], pinned_columns=columns
        ),
    )


def _section(part: Part) -> ws.Section:
    layout = ws.SectionLayoutSettings(columns=part.columns, rows=1 if part.columns == 1 else 3)
    return ws.Section(part.title, panels=part.panels, is_open=part.is_open, layout_settings=layout)


def _report(study: Study, name: str, place: Place) -> wr.Report:
    runs = _runset("Runs", study.compared_runs, place)
    blocks: list[Any] = [wr.MarkdownBlock(_verdict(study))]
    for part in _parts(study):
        blocks += _grid(part, runs)
    if study.trials:
        blocks += _grid(_part_of_trials(study), _runset("Trials", study.all_trials, place))
    blocks += [wr.H2("Footing"), wr.MarkdownBlock(_footing(study))]
    return wr.Report(
        entity=place.entity,
        project=place.project,
        title=name,
        description=study.subtitle,
        blocks=blocks,
        width="fluid",
    )


def _grid(part: Part, runs: wr.Runset) -> list[Any]:
    return [wr.H2(part.title), wr.PanelGrid(runsets=[runs], panels=panels.in_rows(part.panels, part.columns))]


def _runset(name: str, runs: list[Run], place: Place) -> wr.Runset:
    """Return these runs; without an entity those of the report's own project, since it cannot be asked for its id."""
    of_project = place._asdict() if place.entity else {}
    return wr.Runset(
        name=name, filters=_only(runs), order=[wr.OrderBy(wr.SummaryMetric("score"), ascending=True)], **of_project
    )


def _only(runs: list[Run]) -> str:
    """Return a filter for these runs, by their ids: a group has also trials, and runs that are not compared."""
    return f"ID in {[run.facts['wandb_id'] for run in runs]}"


def _verdict(study: Study) -> str:
    """Return the verdict's sentences, and what a reader must know first, as the report's page has them."""
    notes = [f"- {note}" for note in study.notes]
    return without_names("\n".join([*(f"{sentence}\n" for sentence in study.verdict), *notes]))


def _footing(study: Study) -> str:
    """Return what is equal in all runs."""
    footing = next((run.footing["equal"] for run in study.compared_runs if run.footing), {})
    lines = [f"| {key} | {_cell(value)} |" for key, value in footing.items()]
    return "\n".join(["These are equal in all runs.\n", "| | |", "| --- | --- |", *lines])


def _cell(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value)
    return text.replace("|", "\\|")


def _allowed(name: str) -> str:
    """Return a name without what W&B takes for emojis, as it does = and +, and no longer than a title may be."""
    return "".join("-" if unicodedata.category(c).startswith(("S", "Cs")) else c for c in name)[:120]
