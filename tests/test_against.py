"""`--against paper`: scores of a recipe's runs beside published numbers, from planted runs."""

import json
from pathlib import Path

import pytest
from conftest import report, settings
from omegaconf import OmegaConf

from ganbench.config.compose import method_label
from ganbench.errors import Refused
from ganbench.report.against import against_paper
from ganbench.report.comparability import NotComparable
from ganbench.report.statistics import iqm_interval
from ganbench.report.tables import format_interval

SNGAN = "experiment=paper/mimicry-sngan"  # FID 16.77 (16.73 to 16.81), Inception Score 7.97 (7.91 to 8.03)
MIYATO = "experiment=paper/miyato"
LUCIC = ("experiment=paper/lucic", "protocol.trial=t000")


def plant(
    folder: Path,
    finals: list[float | None],
    *overrides: str,
    batch: int = 64,
    protocol: str | None = None,
    **others: float,
) -> None:
    """Make the folders of runs, a seed each, as if they had ended with these scores; one without has diverged."""
    cfg = settings(*overrides)
    config = OmegaConf.to_container(cfg, resolve=True, enum_to_str=True)
    assert isinstance(config, dict)
    start = len(list(folder.glob("*")))
    for seed, final in enumerate(finals):
        run = folder / f"{start}-s{seed}"
        run.mkdir(parents=True)
        OmegaConf.save(OmegaConf.create(config | {"seed": seed}), run / "config.yaml")
        last = {"images": cfg.protocol.images, cfg.metric.name: final} | others
        rows = [{"images": 0, cfg.metric.name: 400.0}, *([last] if final is not None else [])]
        (run / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        status = {"status": "diverged" if final is None else "finished", "score": final, "label": method_label(cfg)}
        (run / "status.json").write_text(json.dumps(status | {"images": cfg.protocol.images, "t_train": 1.0}))
        parts = {
            "equal": {"batch": batch, "track": cfg.protocol.track.value, "metric_protocol": protocol},
            "setting": {},
            "method": {"code": "none"},
        }
        (run / "footing.json").write_text(json.dumps(parts | {"start": {}, "machine": {}}))


def table(text: str) -> list[dict[str, str]]:
    """Return the rows of the tables in a text, by the names of their columns."""
    lines = [[cell.strip() for cell in line.strip("|").split(" | ")] for line in text.splitlines() if line[:1] == "|"]
    return [dict(zip(lines[0], line, strict=True)) for line in lines[2:]]


@pytest.mark.parametrize(
    ("finals", "ours", "verdict"),
    [
        ([16.80], "16.8", "inside the published range"),
        ([16.9], "16.9", "outside the published range, ours is worse by 0.13"),
        ([15.77], "15.8", "outside the published range, ours is better by 1"),
        (
            [16.7, 16.9, 17.1, 17.3],
            "17 (14.7 to 19.3)",
            "outside the published range, ours is worse by 0.23; our interval meets it",
        ),
        ([30.0, 30.1, 30.2, 30.3], "30.1 (29 to 31.3)", "outside the published range, ours is worse by 13.4"),
        ([None, None], "–", "none: we have no score"),
    ],
)
def test_a_score_is_held_against_a_range(finals: list[float | None], ours: str, verdict: str, tmp_path: Path) -> None:
    plant(tmp_path, finals, SNGAN)
    row = table(against_paper(tmp_path))[0]
    assert (row["method"], row["score"], row["published"]) == ("hinge", "fid", "16.8 (16.7 to 16.8)")
    assert (row["ours"], row["verdict"], row["seeds"]) == (ours, verdict, str(len(finals)))
    if len(finals) >= 4:
        interval = iqm_interval(finals)
        assert interval and ours.endswith(f"({format_interval(interval)})")


def test_of_the_inception_score_more_is_better_and_a_run_that_diverged_the_worst(tmp_path: Path) -> None:
    plant(tmp_path, [20.0] * 2, SNGAN, inception_score=8.25)
    fid, score = table(against_paper(tmp_path))
    assert fid["score"] == "fid" and score["score"] == "inception_score"
    assert (score["ours"], score["verdict"]) == ("8.25", "outside the published range, ours is better by 0.28")
    plant(tmp_path / "b", [20.0, None, None], SNGAN, inception_score=8.25)
    lost = table(against_paper(tmp_path / "b"))[1]
    assert lost["verdict"] == "none: we have no score" and "2 of 3 runs diverged" in lost["what differs in these runs"]


def test_a_number_without_a_range_is_held_against_our_interval(tmp_path: Path) -> None:
    gp = "experiment=paper/wgan-gp-cnn"  # 29.3
    plant(tmp_path / "a", [29.0, 29.2, 29.4, 29.9], gp)
    plant(tmp_path / "b", [20.0, 20.2, 20.4, 20.6], gp)
    plant(tmp_path / "c", [29.0], gp)
    verdicts = [table(against_paper(tmp_path / name))[0]["verdict"] for name in "abc"]
    assert verdicts == [
        "the published value is inside our interval",
        "outside our interval, ours is better by 9",
        "none: neither has a range; ours is better by 0.3",
    ]


def test_what_was_changed_and_how_scores_were_taken_is_told(tmp_path: Path) -> None:
    """All of it, and nothing else."""
    plant(tmp_path / "a", [20.0], SNGAN)
    assert table(against_paper(tmp_path / "a"))[0]["what differs in these runs"] == "nothing"
    changes = ("protocol.images=640", "model.critic.width=8", "metric.n_fake=4000", "metric.reference=held_out")
    plant(tmp_path / "b", [20.0, 21.0], SNGAN, *changes, "dataset.root=elsewhere", "threads=2", "checkpoint_every=7")
    told = table(against_paper(tmp_path / "b"))[0]["what differs in these runs"].split("; ")
    assert sorted(told) == [
        "2 seeds, not 1",
        "4,000 samples, not 50,000",
        "640 of 32,000,000 images",
        "against held-out images, not training images",
        "model.critic.width=8, not 128",
    ]


@pytest.mark.parametrize(
    ("overrides", "score"),
    [
        (("metric=kid",), "kid"),
        (("metric.features._target_=mine.Net",), "fid50k by Net"),
        ((f"metric.features.sha256={'0' * 64}",), "fid50k by other weights"),
    ],
)
def test_another_score_is_named_and_gets_no_verdict(overrides: tuple[str, ...], score: str, tmp_path: Path) -> None:
    plant(tmp_path, [3.0], SNGAN, *overrides)
    row = table(against_paper(tmp_path))[0]
    assert (row["ours"], row["verdict"]) == (f"{score}: 3", f"none: {score} is another score than fid")


@pytest.mark.parametrize(
    ("overrides", "dataset"), [((SNGAN, "dataset=svhn"), "svhn"), ((*LUCIC, "dataset=cifar100"), "cifar100")]
)
def test_on_other_data_a_number_gets_no_verdict(overrides: tuple[str, ...], dataset: str, tmp_path: Path) -> None:
    """Images of the same size do not make two datasets one."""
    plant(tmp_path, [16.77], *overrides, inception_score=7.97)
    for row in table(against_paper(tmp_path)):
        assert row["verdict"] == f"none: the paper has no number on {dataset}"
        assert f"dataset={dataset}, not cifar10" in row["what differs in these runs"]


@pytest.mark.slow
def test_of_a_paper_s_settings_the_best_counts_and_methods_may_differ(tmp_path: Path) -> None:
    for setting, final in zip("ABC", (30.0, 29.4, 50.0), strict=True):
        plant(tmp_path, [final], MIYATO, f"paper.setting={setting}")
    plant(tmp_path, [40.0], MIYATO, "paper/miyato=wgan-gp", "paper.setting=A", batch=32)
    plant(tmp_path, [41.0], MIYATO, "loss=lsgan", "paper.setting=A", "paper.method=null")
    rows = {row["method"]: row for row in table(against_paper(tmp_path))}
    assert rows["sn-gan (setting B, the best of 3)"]["ours"] == "29.4"
    assert rows["sn-gan (setting B, the best of 3)"]["what differs in these runs"] == "nothing"
    assert rows["wgan-gp (setting A)"]["published"] == "40.2"
    assert rows["lsgan (setting A)"]["verdict"] == "none: the paper has no such method"
    assert len(rows) == 3


@pytest.mark.slow
def test_the_best_is_of_the_paper_s_settings_alone(tmp_path: Path) -> None:
    """Not of widths, nor of protocols of scores; budgets belong to the settings."""
    plant(tmp_path, [30.0], MIYATO, "paper.setting=A")
    plant(tmp_path, [25.0], MIYATO, "paper.setting=B", "model.width=128")
    plant(tmp_path, [20.0], MIYATO, "paper.setting=A", "metric.n_fake=50000")
    plant(tmp_path, [31.0], MIYATO, "paper.setting=D", "protocol.images=6400000")
    rows = {row["ours"]: row for row in table(against_paper(tmp_path))}
    assert {ours: row["method"] for ours, row in rows.items()} == {
        "30": "sn-gan (setting A, the best of 2)",
        "25": "sn-gan (setting B)",
        "20": "sn-gan (setting A)",
    }
    assert rows["25"]["what differs in these runs"] == "model.width=128, not 64"
    assert rows["20"]["what differs in these runs"] == "50,000 samples, not 5,000"
    verdicts = {ours: row["verdict"] for ours, row in rows.items()}
    assert verdicts["20"] == "none: scored by another protocol" and not verdicts["25"].startswith("none: scored")


def test_a_search_over_several_datasets(tmp_path: Path) -> None:
    """Each with its own numbers; what a search has chosen is no change, how much it searched is."""
    plant(
        tmp_path, [6.6] * 2, *LUCIC, "dataset=mnist", "protocol.lr=0.00123", "protocol.n_critic=5", "protocol.trials=9"
    )
    plant(tmp_path, [55.0] * 2, *LUCIC, "loss=wgan", "protocol.lr=0.00123")
    mnist, cifar = sorted(table(against_paper(tmp_path)), key=lambda row: row["method"])
    assert (mnist["method"], mnist["published"]) == ("gan", "6.8 (6.3 to 7.3)")
    assert mnist["what differs in these runs"] == "2 seeds, not 50; protocol.trials=9, not 100"
    assert (cifar["method"], cifar["published"]) == ("wgan-clip", "55.2 (52.9 to 57.5)")
    assert cifar["verdict"] == "inside the published range"


def test_runs_of_a_method_on_unequal_footing_are_refused(tmp_path: Path) -> None:
    plant(tmp_path, [20.0], SNGAN)
    plant(tmp_path, [20.0], SNGAN, batch=32)
    with pytest.raises(NotComparable, match="batch is 64 in 0-s0, 32 in 1-s0"):
        against_paper(tmp_path)
    assert len(table(against_paper(tmp_path, allowed=("batch",)))) == 2


def test_two_protocols_of_scores_share_no_table(tmp_path: Path) -> None:
    """Datasets and recipes have tables, or rows, of their own."""
    plant(tmp_path / "mixed", [20.0], SNGAN, protocol="of 50,000")
    plant(tmp_path / "mixed", [21.0], SNGAN, "loss=gan", protocol="of 5,000")
    with pytest.raises(NotComparable, match=r"cifar10: .* a table: \[of 50,000\] in 0-s0 and \[of 5,000\] in 1-s0"):
        against_paper(tmp_path / "mixed", allowed=("batch",))
    plant(tmp_path / "apart", [20.0], SNGAN, protocol="of 50,000")
    plant(tmp_path / "apart", [20.0], SNGAN, "dataset=svhn", protocol="of 5,000")
    plant(tmp_path / "apart", [20.0], "experiment=paper/wgan-gp-cnn", protocol="of 500")
    text = against_paper(tmp_path / "apart")
    assert text.count("# experiment=paper/") == 2 and "name=svhn" in text


def test_runs_of_no_recipe_or_without_an_end_are_one_sentence(tmp_path: Path) -> None:
    plant(tmp_path / "plain", [20.0], "loss=gan")
    with pytest.raises(Refused, match=r"has no run of a paper's recipe; make some with experiment=paper/\.\.\."):
        against_paper(tmp_path / "plain")
    plant(tmp_path / "cut", [20.0], SNGAN)
    status = tmp_path / "cut/0-s0/status.json"
    status.write_text(json.dumps(json.loads(status.read_text()) | {"status": "interrupted"}))
    with pytest.raises(Refused, match="no run of a paper's recipe that finished or diverged"):
        against_paper(tmp_path / "cut")


def test_on_the_command_line(tmp_path: Path) -> None:
    """A folder of sweeps is told sweep by sweep; nothing is written."""
    plant(tmp_path / "plain", [20.0], "loss=gan")
    plant(tmp_path / "sngan", [20.0], SNGAN)
    files = sorted(tmp_path.rglob("*"))
    done = report(tmp_path, "--against", "paper")
    assert done.returncode == 0 and "2005.02494" in done.stdout and len(table(done.stdout)) == 2
    assert done.stderr.startswith(f"{tmp_path / 'plain'} has no run of a paper's recipe")
    assert report(tmp_path / "plain", "--against", "paper").returncode == 1
    assert report(tmp_path / "sngan", "--against", "paper", "--power").returncode == 2
    assert sorted(tmp_path.rglob("*")) == files
