"""Draw a sweep at Weights & Biases: the panels of its workspace and its report, by section."""

from typing import Any

import wandb_workspaces.reports.v2 as wr

from ganbench.report.study import Study
from ganbench.report.tuning import searched_settings
from ganbench.runs.wandb_rows import name_at_wandb

# The terms of the losses and the norms of gradients, in the order in which they are drawn.
LOSSES_AND_GRADIENTS = (
    *("loss/d_loss", "loss/g_loss", "loss/d_penalty"),
    *("critic/d_grad_norm", "generator/g_grad_norm", "generator/g_saturated"),
    *("critic/d_real", "critic/d_fake", "critic/d_slope_real", "critic/d_slope_fake"),
)
ON_LOG_SCALE = ("lr", "penalty_weight")  # in parallel coordinates

Panels = list[Any]


def score_panels(study: Study) -> Panels:
    """Return curves of the score by method, its end as bars, and the score against what it costs."""
    lower = f"{study.metric}, lower is better"
    score, n_runs = wr.SummaryMetric("score"), len(study.compared_runs)
    grouped: dict[str, Any] = {"groupby": wr.Config("method"), "groupby_aggfunc": "mean"}
    return [
        _curve("score", "Score against real images", n_runs, y_title=lower),
        _curve("score", "Score against seconds of training", n_runs, "time/t_train", "seconds", lower),
        wr.BarPlot(
            title="Final score by method: mean and range of the seeds",
            metrics=["score"],
            title_x=lower,
            groupby_rangefunc="minmax",
            max_runs_to_show=n_runs,
            **grouped,
        ),
        wr.BarPlot(
            title="Final score of every seed",
            metrics=["score"],
            title_x=lower,
            max_runs_to_show=n_runs,
            max_bars_to_show=n_runs,
        ),
        wr.ScatterPlot(title="Final score of every seed", x=wr.Config("seed"), y=score),
        wr.ScatterPlot(title="Final score against seconds of a run", x=wr.SummaryMetric("seconds"), y=score),
    ]


def loss_panels(study: Study) -> Panels:
    """Return curves of what is recorded of losses, gradients and probes."""
    names = recorded_names(study)
    probes = sorted(name for name in names if name.startswith("probe/"))
    drawn = [name for name in LOSSES_AND_GRADIENTS if name in names] + probes
    return [_curve(name, name, len(study.compared_runs)) for name in drawn]


def other_score_panels(study: Study) -> Panels:
    """Return curves of all scores but the one that ranks, which has panels of its own."""
    ranking = name_at_wandb(study.metric)
    names = sorted(name for name in recorded_names(study) if name.startswith(("score/", "diversity/")))
    shown = [name for name in names if name not in (ranking, f"{ranking}_raw")]
    return [_curve(name, name, len(study.compared_runs)) for name in shown]


def sample_panels() -> Panels:
    """Return the grids of samples: a row for each run and a column for each step, all of the same latents."""
    return [
        wr.MediaBrowser(title="Samples", media_keys=["samples"], mode="grid", grid_x_axis="step", grid_y_axis="run")
    ]


def trial_panels(study: Study) -> Panels:
    """Return the searched settings as parallel coordinates, and the score against each."""
    score = wr.SummaryMetric("score")
    settings = searched_settings(study.trials)
    columns = [wr.ParallelCoordinatesPlotColumn(metric=wr.Config("method"))]
    columns += [_coordinate(key) for key in settings]
    columns.append(wr.ParallelCoordinatesPlotColumn(metric=score, log=True))
    scatter = [
        wr.ScatterPlot(title=f"Score against {key}", x=wr.Config(f"protocol.{key}"), y=score, log_x=key in ON_LOG_SCALE)
        for key in settings
    ]
    return [wr.ParallelCoordinatesPlot(title="Trials: settings and score", columns=columns), *scatter]


def comparison_panels() -> Panels:
    """Return the table of what differs between runs."""
    return [wr.RunComparer(diff_only="split")]


def recorded_names(study: Study) -> set[str]:
    """Return the names, at W&B, of all numbers that a run of the study has recorded."""
    names = set()
    for run in study.compared_runs:
        names |= {
            name_at_wandb(key) for row in run.rows for key, value in row.items() if isinstance(value, int | float)
        }
        names |= {f"probe/{row['loss']}_{row['critic']}_left" for row in run.probes}
    return names


def _curve(
    name: str, title: str, n_runs: int, x: str = "images", x_title: str = "real images", y_title: str | None = None
) -> wr.LinePlot:
    """Return the mean over seeds by method, with a band from the lowest to the highest."""
    return wr.LinePlot(
        title=title,
        x=x,
        y=[name],
        title_x=x_title,
        title_y=y_title,
        groupby=wr.Config("method"),
        groupby_aggfunc="mean",
        groupby_rangefunc="minmax",
        max_runs_to_show=n_runs,
    )


def _coordinate(key: str) -> wr.ParallelCoordinatesPlotColumn:
    return wr.ParallelCoordinatesPlotColumn(metric=wr.Config(f"protocol.{key}"), log=key in ON_LOG_SCALE)


def in_rows(panels: Panels, columns: int) -> Panels:
    """Place panels on the 24 columns of a report's grid, from left to right; one alone in its row is higher."""
    width, height = 24 // columns, 16 if columns == 1 else 9
    for number, panel in enumerate(panels):
        row, column = divmod(number, columns)
        panel.layout = wr.Layout(x=column * width, y=row * height, w=width, h=height)
    return panels
