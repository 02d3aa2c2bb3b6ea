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


class Place(NamedTuple):
    """The project at W&B that has the runs."""

    entity: str  # empty where nobody has asked W&B yet
    project: str


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


def _workspace(study: Study, name: str, place: Place) -> ws.Workspace:
    runs = study.compared_runs
    sections = [
        ws.Section("Scores", panels=panels.score_panels(study), is_open=True),
        ws.Section("Losses and gradients", panels=panels.loss_panels(study), is_open=True),
        ws.Section("Samples of the same latents", panels=panels.sample_panels(), is_open=True),
        ws.Section("Other scores", panels=panels.other_score_panels(study)),
        ws.Section("Compare runs", panels=panels.comparison_panels()),
    ]
    return _workspace_of(runs, name, place, [section for section in sections if section.panels])


def _workspace_of_trials(study: Study, name: str, place: Place) -> ws.Workspace:
    """Return a workspace of its own, because all panels of a workspace show the same runs."""
    section = ws.Section("Trials", panels=panels.trial_panels(study), is_open=True)
    return _workspace_of(study.all_trials, name, place, [section])


def _workspace_of(runs: list[Run], name: str, place: Place, sections: list[ws.Section]) -> ws.Workspace:
    columns = [f"summary:{key}" for key in ("score", "score_best", "status", "seconds")]
    return ws.Workspace(
        entity=place.entity,
        project=place.project,
        name=name,
        sections=sections,
        settings=ws.WorkspaceSettings(x_axis="images", max_runs=len(runs)),
        runset_settings=ws.RunsetSettings(
            filters=_only(runs), order=[ws.Ordering(ws.Summary("score"), ascending=True)], pinned_columns=columns
        ),
    )


def _report(study: Study, name: str, place: Place) -> wr.Report:
    grids = {
        "Scores": panels.score_panels(study),
        "Losses and gradients": panels.loss_panels(study),
        "Samples of the same latents": panels.sample_panels(),
        "Other scores": panels.other_score_panels(study),
        "Compare runs": panels.comparison_panels(),
    }
    runs = _runset("Runs", study.compared_runs, place)
    blocks: list[Any] = [wr.MarkdownBlock(_verdict(study))]
    for heading, drawn in grids.items():
        columns = 1 if heading in ("Samples of the same latents", "Compare runs") else 2
        if drawn:
            blocks += [wr.H2(heading), wr.PanelGrid(runsets=[runs], panels=panels.in_rows(drawn, columns))]
    if study.trials:
        trials = _runset("Trials", study.all_trials, place)
        drawn = panels.in_rows(panels.trial_panels(study))
        blocks += [wr.H2("Trials"), wr.PanelGrid(runsets=[trials], panels=drawn)]
    blocks += [wr.H2("Footing"), wr.MarkdownBlock(_footing(study))]
    return wr.Report(
        entity=place.entity,
        project=place.project,
        title=name,
        description=study.subtitle,
        blocks=blocks,
        width="fluid",
    )


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
    return "\n".join([*(f"{sentence}\n" for sentence in study.verdict), *notes])


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
