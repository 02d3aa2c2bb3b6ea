"""The report, from planted numbers."""

import csv
import io
import json
import math
import os
import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from conftest import ganbench, report, settings
from matplotlib.figure import Figure
from omegaconf import OmegaConf
from PIL import Image

from ganbench.config.compose import method_label
from ganbench.errors import Refused
from ganbench.report import latex, search
from ganbench.report.comparability import NotComparable
from ganbench.report.compare import compare_all, group_by_method
from ganbench.report.cost import runs_at_once, what_is_timed
from ganbench.report.figures import svg, training
from ganbench.report.load import Run, load_runs
from ganbench.report.pages.sweep import write, write_files
from ganbench.report.study import Study, load_study
from ganbench.report.tables import all_runs, csv_of_results, format_number, markdown, run_headers
from ganbench.runs.status import plan_runs

INTERVAL = r"95\,\% interval"
FINALS = {"gan": [4.0, 5.0, 6.0], "wgan-gp": [2.0, 2.5, 3.0], "hinge": [3.0, 9.0, None]}


def plant(folder: Path, loss: str, seed: int, final: float | None, *overrides: str, speed: float = 100.0) -> Path:
    """Make a run folder as a run would leave it: the score falls from 20 by way of its best to `final`."""
    cfg = settings(f"loss={loss}", "protocol.images=6400", *overrides)
    cfg.seed = seed
    label = method_label(cfg)
    run = folder / f"{label}-s{seed}{'-'.join(overrides).replace('/', '_')}"
    (run / "samples").mkdir(parents=True)
    OmegaConf.save(OmegaConf.create(OmegaConf.to_container(cfg, resolve=True, enum_to_str=True)), run / "config.yaml")
    rows = [{"images": 0, "fd_lenet": 20.0}]
    for images in (1600, 3200, 4800, 6400):
        t = images / speed
        losses = {"d_loss": 1.0 - images / 1e4, "g_loss": 1.0, "d_penalty": 0.5, "d_real": 1.0, "d_fake": -1.0}
        norms = {"d_grad_norm": 1.0, "g_grad_norm": 0.1}
        rows.append({"images": images, "t_train": t, "t_images_per_second": speed} | losses | norms)
        if images == 3200:
            rows.append({"images": images, "fd_lenet": 1.5})
    if final is not None:
        rows.append({"images": 6400, "fd_lenet": final, "recall": final / 10, "kid": None})
    (run / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    state, reason = ("finished", None) if final is not None else ("diverged", "d_loss was nan")
    status = {
        "score": final,
        "images": 6400,
        "t_train": 6400 / speed,
        "real_reference": {"fd_lenet": 0.5, "recall": 0.97, "kid": -0.01},
    }
    status |= {"status": state, "reason": reason, "ganbench": "0", "commit": "abc", "torch": "2", "device": "cpu"}
    (run / "status.json").write_text(json.dumps(status))
    (run / "footing.json").write_text(json.dumps(footing(cfg)))
    for images in (0, 6400):
        Image.new("L", (256, 256), (images + seed) % 255).save(run / "samples" / f"{images:09d}.png")
    return run


def footing(cfg) -> dict:
    """Return a footing.json of the settings that tests vary."""
    setting = {"lr": cfg.optimizer.lr, "penalty_weight": cfg.penalty.get("weight")}
    return {
        "equal": {"dataset": cfg.dataset.name, "batch": cfg.protocol.batch, "track": cfg.protocol.track.value},
        "setting": setting,
        "method": {"code": "none"},
        "start": {"generator_weights": f"g{cfg.seed}"},
        "machine": {"device": "cpu"},
    }


@pytest.fixture
def sweep(tmp_path: Path) -> Path:
    for loss, finals in FINALS.items():
        for seed, final in enumerate(finals):
            plant(tmp_path, loss, seed, final, speed=50.0 if loss == "wgan-gp" else 100.0)
    return tmp_path


def text_of(folder: Path) -> str:
    """Return the text of results.md, without drawing a page."""
    return markdown(load_study(folder))


def test_methods_and_their_numbers(sweep: Path) -> None:
    methods = group_by_method(load_runs(sweep))
    assert [method.label for method in methods] == ["wgan-gp", "gan", "hinge"]
    gp, gan, hinge = methods
    assert gp.finals == {0: 2.0, 1: 2.5, 2: 3.0}
    assert (gp.iqm, gan.iqm, hinge.iqm) == (2.5, 5.0, 9.0)  # medians; a diverged run is the worst, not left out
    assert gp.interval is None and hinge.interval is None
    assert (gp.best, gp.seconds, gp.speed, gan.speed) == (1.5, 128, 50, 100)
    comparisons = {(c.better.label, c.worse.label): c for c in compare_all(methods)}
    ours = comparisons["wgan-gp", "gan"].difference
    assert (ours.gap, ours.interval, ours.n, ours.win_rate, ours.p) == (2.5, None, 3, 1.0, 1.0)
    theirs = comparisons["wgan-gp", "hinge"].difference
    assert (theirs.gap, theirs.std, theirs.win_rate) == (6.5, None, 1.0)


def test_other_scores_are_shown_with_those_of_real_data(sweep: Path) -> None:
    lines = [line for line in write(sweep).splitlines() if line.startswith("| ")]
    side = lines[lines.index("| method | recall | kid |") :]
    assert side[2:] == [
        "| wgan-gp | 0.25 | – |",
        "| gan | 0.5 | – |",
        "| hinge | 0.6 | – |",
        "| real data | 0.97 | -0.01 |",
    ]
    assert '<table id="sides"' in (sweep / "report.html").read_text()


def test_a_score_that_fell_away_is_not_taken_from_before(sweep: Path) -> None:
    lines = (sweep / "gan-s0/metrics.jsonl").read_text().splitlines()
    first, last = json.loads(lines[0]), json.loads(lines[-1])
    rest = [json.dumps(first | {"recall": 0.9}), *lines[1:-1], json.dumps(last | {"recall": None})]
    (sweep / "gan-s0/metrics.jsonl").write_text("\n".join(rest) + "\n")
    assert "| gan | 0.55 (2 of 3) | – |" in text_of(sweep)


def test_the_three_files(sweep: Path) -> None:
    text = write(sweep)
    assert (sweep / "results.md").read_text() == text
    lines = [line for line in text.splitlines() if line.startswith("| ")]
    assert lines[0].startswith("| method | seeds | median | 95 % interval |")
    assert lines[2] == "| wgan-gp | 3 | 2.5 | – |  |  |  | 128 | 50 | 1.5 | 2, 2.5, 3 |"
    assert lines[3] == "| gan | 3 | 5 | – | 2.5 | – | 3 of 3 | 64 | 100 | 1.5 | 4, 5, 6 |"
    assert lines[4] == "| hinge | 3 | 9 | – | 6.5 | – | 3 of 3 | 64 | 100 | 1.5 | 3, 9, diverged |"
    assert "wgan-gp has the lowest final fd_lenet: a median over 3 seeds of 2.5, followed by gan (5)." in text
    assert "With 3 seeds this is a hint, not a result: 3 comparisons need 7 seeds or more" in text
    assert "better than" not in text and "No significant difference" not in text
    assert "hinge-s2: diverged (d_loss was nan)." in text
    table = list(csv.DictReader((sweep / "results.csv").open()))
    assert len(table) == 9
    assert {r["folder"]: r["final"] for r in table}["gan-s1"] == "5"
    assert {r["folder"]: r["status"] for r in table}["hinge-s2"] == "diverged"


def test_a_run_that_collapsed_says_so_with_its_status(sweep: Path) -> None:
    for name in ("gan-s1", "hinge-s2"):
        file = sweep / name / "status.json"
        file.write_text(json.dumps(json.loads(file.read_text()) | {"collapsed": 4800}))
    text = write(sweep)
    for name in ("gan-s1", "hinge-s2"):
        assert f"- {name}: mode collapse at 4,800 images (nearly the same sample from every latent)." in text
    assert text.count("mode collapse") == 2
    endings = {str(row[0]): str(row[3]) for row in all_runs(load_study(sweep))}
    assert endings["gan-s1"] == "finished, collapsed" and endings["gan-s0"] == "finished"
    assert endings["hinge-s2"] == "diverged, collapsed: d_loss was nan"
    assert "finished, collapsed" in (sweep / "report.html").read_text()


@pytest.mark.slow
def test_other_numbers_make_another_method(tmp_path: Path) -> None:
    for weight in (1, 10):
        plant(tmp_path, "wgan-gp", 0, float(weight), f"penalty.weight={weight}")
    plant(tmp_path, "gan", 0, 5.0, "optimizer.lr=0.01")
    assert [method.label for method in group_by_method(load_runs(tmp_path))] == [
        "wgan-gp (penalty.weight=1)",
        "gan",
        "wgan-gp (penalty.weight=10)",
    ]
    with pytest.raises(
        NotComparable,
        match=r"lr is 0.01 in gan-s0optimizer.lr=0.01, 0.002 in wgan-gp-s0penalty.weight=10 and 1 more",
    ) as refusal:
        write(tmp_path)
    assert "penalty_weight is 10 in" in str(refusal.value) and not (tmp_path / "report.html").exists()
    assert str(refusal.value).endswith("--allow-mismatch lr --allow-mismatch penalty_weight")
    write(tmp_path, ("lr", "penalty_weight"))
    page = (tmp_path / "report.html").read_text()
    assert "These settings differ" in page and ">optimizer.lr</th>" in page and "<td>0.01</td>" in page


REASONS = {
    "empty": "it has no status.json)",
    "status.json": "it has no status.json)",
    "config.yaml": "it has no config.yaml)",
}
DAMAGES = ("status.json", "config.yaml", "metrics.jsonl", "footing.json", "garbled", "empty", "records", "probes")


def test_a_terminal_of_another_encoding_shows_what_it_can(sweep: Path) -> None:
    shown = ganbench(str(sweep), cwd=sweep, module="ganbench.report", PYTHONIOENCODING="ascii")
    assert shown.returncode == 0, shown.stderr
    assert " ? 6,400 real images a run ? " in shown.stdout


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_run_becomes_a_row(damage: str, sweep: Path) -> None:
    run = sweep / "gan-s0"
    if damage == "empty":
        shutil.rmtree(run)
        run.mkdir()
    elif damage == "garbled":
        (run / "status.json").write_bytes(b"\xff{<script>")
    elif damage == "records":
        (run / "metrics.jsonl").write_text("3\n")
    elif damage == "probes":
        (run / "probes.jsonl").write_text('{"images": 0}\n')
    else:
        (run / damage).unlink()
    text = text_of(sweep)
    assert f"gan-s0: unreadable ({REASONS.get(damage, '')}" in text
    assert "| gan | 2 | 5.5 |" in text and "| wgan-gp | 2 | 2.75 |" in text and "| 5, 6 |" in text
    assert "different seeds; only those that all have are compared (left out: 0)" in text


def test_unreadable_runs_are_rows_of_the_page(sweep: Path) -> None:
    (sweep / "gan-s0/status.json").write_bytes(b"\xff{<script>")
    (sweep / "gan-s1/config.yaml").unlink()
    change(sweep / "hinge-s0/metrics.jsonl", histogram=[1, "a"])
    write(sweep)
    assert (sweep / "report.html").read_text().count(">unreadable: ") == 3


@pytest.mark.slow
def test_a_sweep_without_a_single_score(tmp_path: Path) -> None:
    for loss in ("gan", "hinge"):
        for seed in range(3):
            run = plant(tmp_path, loss, seed, None)
            (run / "metrics.jsonl").write_text("")
    ended = report(tmp_path)
    assert ended.returncode == 7 and ended.stderr == "No method has a final score.\n"
    assert "No method has a final score, so nothing can be compared" in ended.stdout
    assert (tmp_path / "report.html").exists()


def change(file: Path, **values) -> None:
    """Change values in a JSON file, or in the last line of a file of JSON lines."""
    *before, last = file.read_text().splitlines() if file.suffix == ".jsonl" else [file.read_text()]
    file.write_text("\n".join([*before, json.dumps(json.loads(last) | values)]) + "\n")


@pytest.mark.parametrize(
    ("file", "values", "why"),
    [
        ("status.json", {"score": "1.2"}, "score is '1.2', not a number"),
        ("status.json", {"t_train": "x"}, "t_train is 'x', not a number"),
        ("status.json", {"real_reference": {"kid": "low"}}, "kid is 'low', not a number"),
        ("metrics.jsonl", {"recall": "high"}, "recall is 'high', not a number"),
        ("metrics.jsonl", {"histogram": [1, "a"]}, "histogram is 'a', not a number"),
        ("metrics.jsonl", {"images": None}, "a record in metrics.jsonl has no images"),
    ],
)
def test_values_that_are_none_become_a_row(sweep: Path, file: str, values: dict, why: str) -> None:
    change(sweep / "gan-s0" / file, **values)
    assert f"gan-s0: unreadable (ValueError: {why})" in text_of(sweep)


@pytest.mark.parametrize("key", ["seed: 0", "protocol:"])
def test_a_garbled_configuration_becomes_a_row(sweep: Path, key: str) -> None:
    config = sweep / "gan-s0/config.yaml"
    config.write_text(re.sub(rf"^{key}.*$", f"{key.split(':')[0]}: zero", config.read_text(), count=1, flags=re.M))
    assert "gan-s0: unreadable (" in text_of(sweep)


@pytest.mark.parametrize("score", [math.nan, math.inf, -math.inf])
def test_a_score_that_is_no_number_comes_last(sweep: Path, score: float) -> None:
    for seed in (0, 1, 2):
        change(sweep / f"wgan-gp-s{seed}/status.json", score=score)
    text = text_of(sweep)
    assert "gan has the lowest final fd_lenet: a median over 3 seeds of 5, " in text
    assert "| wgan-gp | 3 | – |" in text


def test_a_field_of_another_version_is_named(sweep: Path) -> None:
    file = sweep / "gan-s0/footing.json"
    content = json.loads(file.read_text())
    file.write_text(json.dumps(content | {"equal": content["equal"] | {"moon": "full"}}))
    with pytest.raises(NotComparable, match=r"(?s)moon is full in gan-s0, null in .* the same version of ganbench"):
        write(sweep)


@pytest.mark.parametrize("status", ["interrupted", "failed", "running"])
def test_a_run_that_was_cut_short_says_nothing_of_its_method(sweep: Path, status: str) -> None:
    change(sweep / "gan-s1/status.json", status=status, reason="SIGTERM")
    text = text_of(sweep)
    assert f"gan-s1: {status} (SIGTERM)" in text and "| gan | 2 | 5 |" in text
    first, second = [line for line in text.splitlines() if line.startswith("- ")][:2]
    assert first == (
        f"- 1 of 9 runs did not finish (1 {status}), and are left out: rerun the same command to complete the sweep, "
        "with retry=true if runs failed."
    )
    assert "different seeds" in second
    assert "only those that all have are compared (left out: 1)" in text


def test_runs_that_were_never_begun_are_counted(sweep: Path) -> None:
    """As of a sweep that was stopped in its midst, begun by two commands."""
    plan_runs(sweep, ["gan-s0", "gan-s3", "hinge-s0"])
    plan_runs(sweep, ["gan-s3", "hinge-s3"])
    change(sweep / "gan-s1/status.json", status="interrupted", reason="SIGTERM")
    first = next(line for line in text_of(sweep).splitlines() if line.startswith("- "))
    assert first.startswith("- 3 of 11 runs did not finish (1 interrupted, 2 never begun), and are left out: rerun ")


def test_what_was_found_in_a_folder_of_images_is_told(sweep: Path) -> None:
    data = {"train": 160, "held_out": 40, "copies": 2, "left_out": {".heic": 3, "run folder": 1, "unreadable": 5}}
    data |= {"unreadable": [f"{i}.png" for i in range(5)]}
    for run in sweep.glob("*-s?"):
        change(run / "status.json", data=data)
    text = text_of(sweep)
    assert "- 2 of 40 held-out images are copies of training images." in text
    assert "- Of the folder of images were left out: 3 .heic, 1 run folder, 5 unreadable." in text
    assert "- Images that cannot be read: 0.png, 1.png, 2.png and 2 more, which status.json names." in text


def test_scores_that_had_another_name_are_read(sweep: Path) -> None:
    for run in sweep.glob("gan-s?"):
        lines = (run / "metrics.jsonl").read_text().splitlines()
        last = json.loads(lines[-1]) | {"memorisation": 0.75, "memorisation_raw": 0.5}
        (run / "metrics.jsonl").write_text("\n".join([*lines[:-1], json.dumps(last)]) + "\n")
        change(run / "status.json", real_reference={"fd_lenet": 0.1, "memorisation": 0.9})
    run = load_study(sweep).methods[1].runs[0]
    assert (
        run.series("memorization") == {max(run.series("fd_lenet")): 0.75} and run.real_reference["memorization"] == 0.9
    )
    assert "memorisation" not in run.last_evaluation and run.last_evaluation["memorization_raw"] == 0.5


def test_a_cost_measured_with_other_code_says_so(sweep: Path) -> None:
    run = load_study(sweep).methods[1].runs[0]
    assert run.label == "gan"
    current = what_is_timed(run.method, None, "none")
    for timed, other in ((current, False), (None, False), (what_is_timed(run.method, "old", "none"), True)):
        timing = {"seconds": {"gan": 3.0}, "machine": "cpu", "updates": 20, "turns": 10, "load_average": 0.1}
        (sweep / "timing.json").write_text(json.dumps(timing | ({"timed": {"gan": timed}} if timed else {})))
        assert ("; gan with other code or settings than here, so measure again" in text_of(sweep)) is other


def test_methods_without_a_common_seed(tmp_path: Path) -> None:
    for seed in (0, 1):
        plant(tmp_path, "gan", seed, 4.0)
        plant(tmp_path, "hinge", seed + 2, 5.0)
    text = text_of(tmp_path)
    assert "No other method has the same seeds as the best one" in text and "No seed is shared by all methods" in text


def test_seeds_that_only_some_share_do_not_contradict_the_order(tmp_path: Path) -> None:
    """At the seeds that it shares with gan, hinge is better at each; over all of them gan is."""
    for seed in range(8):
        plant(tmp_path, "gan", seed, 6.0 + seed / 100)
        plant(tmp_path, "gan", seed + 20, 2.0 + seed / 100)
        plant(tmp_path, "hinge", seed, 5.0 + seed / 100)
        plant(tmp_path, "lsgan", seed + 20, 9.0 + seed / 100)
        plant(tmp_path, "wgan", seed, 7.0)
    study = load_study(tmp_path)
    assert [(c.better.label, c.worse.label) for c in study.comparisons] == [("hinge", "wgan-clip")]
    assert "gan has the lowest" in study.verdict[0] and "No other method has the same seeds" in study.verdict[1]


def test_a_method_whose_runs_diverge_comes_last(tmp_path: Path) -> None:
    for seed, final in enumerate([5.0, 6.0]):
        plant(tmp_path, "gan", seed, final)
    for seed, final in enumerate([1.0, None]):
        plant(tmp_path, "wgan-gp", seed, final)
    text = text_of(tmp_path)
    assert "gan has the lowest final fd_lenet: a mean over 2 seeds of 5.5, " in text
    assert "followed by wgan-gp (too few runs with a score)." in text


def test_cost_is_that_of_a_whole_budget(tmp_path: Path) -> None:
    """A run that diverged early was not fast."""
    for seed, final in enumerate([5.0, 6.0, 7.0, None, None, None]):
        run = plant(tmp_path, "gan", seed, final, speed=100.0)
        if final is None:
            change(run / "status.json", images=64, t_train=0.64)
        plant(tmp_path, "hinge", seed, None)
    gan, hinge = group_by_method(load_runs(tmp_path))
    assert (gan.seconds, gan.speed) == (64.0, 100.0) and math.isnan(hinge.seconds)
    text = text_of(tmp_path)
    assert "There is nothing to compare: only gan has a final score." in text
    assert "| 64 | 100 | 1.5 | 5, 6, 7, diverged, diverged, diverged |" in text


def test_runs_that_shared_the_machine_are_counted(sweep: Path) -> None:
    """Two at once on one host, while a third runs on another."""
    assert "shared the machine" not in text_of(sweep)
    for run, host, start in (("gan-s0", "a", 0), ("gan-s1", "a", 5), ("hinge-s0", "b", 0)):
        change(sweep / run / "status.json", host=host, t_started=f"2026-01-01T00:00:{start:02}+0000", t_wall=10.0)
    assert runs_at_once(load_runs(sweep)) == pytest.approx((1.5 + 1.5 + 1) / 3)
    assert "while on average 1.3 runs of this sweep shared the machine" in text_of(sweep)
    change(sweep / "gan-s1/status.json", resumed=[{"images": 64, "t": "2026-01-02T00:00:00+0000"}])
    assert runs_at_once(load_runs(sweep)) == 1


@pytest.mark.slow
def test_methods_are_timed_alone(tmp_path: Path) -> None:
    small = ("dataset=ring", "device=cpu")
    for loss in ("gan", "wgan-gp"):
        plant(tmp_path, loss, 0, 3.0, *small)
    plant(tmp_path, "hinge", 0, None, *small)
    assert "--time" in report(tmp_path).stdout
    timed = report(tmp_path, "--time")
    assert timed.returncode == 0, timed.stderr
    seconds = json.loads((tmp_path / "timing.json").read_text())["seconds"]
    assert sorted(seconds) == ["gan", "wgan-gp"] and min(seconds.values()) > 0
    assert "| seconds alone | seconds |" in timed.stdout and "measured alone, in 10 turns of 20" in timed.stdout
    for label, alone in seconds.items():
        assert re.search(rf"{label} .*\| {format_number(alone)} \| 64 \| 100 \|", timed.stdout), timed.stdout
    assert re.search(r"hinge .*\| – \| – \| – \| \S+ \| diverged \|", timed.stdout)
    (tmp_path / "timing.json").write_text("{}")
    damaged = report(tmp_path)
    assert damaged.returncode == 1 and "timing.json is damaged" in damaged.stderr


@pytest.mark.slow
def test_the_power_of_a_sweep(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for seed in range(6):
        plant(tmp_path, "gan", seed, 4 + float(rng.normal()))
        plant(tmp_path, "hinge", seed, 5 + float(rng.normal()))
    (only,) = load_study(tmp_path).comparisons
    for arguments, gap in (([], only.difference.gap), (["2.5"], 2.5)):
        told = report(tmp_path, "--power", *arguments)
        row = next(line for line in told.stdout.splitlines() if " vs. " in line)
        assert " with 1 compared pair, by " in told.stdout
        assert row.endswith(f"| {format_number(gap)} | {only.seeds_needed(gap, 1)} |")
    assert not (tmp_path / "report.html").exists()
    refused = report(tmp_path, "--power", "-1")
    assert refused.returncode == 2 and "--power -1 must be a finite number > 0" in refused.stderr


@pytest.mark.slow
def test_how_the_shared_setting_was_chosen_is_disclosed(tmp_path: Path) -> None:
    plant(tmp_path / "equal", "gan", 0, 3.0)
    plant(tmp_path / "paper", "gan", 0, 3.0, "protocol=paper")
    disclosure = "one setting for all methods; its defaults were chosen by scores on the held-out digits of mnist5k"
    assert disclosure in write(tmp_path / "equal") and disclosure in (tmp_path / "equal/report.html").read_text()
    assert "held-out digits" not in write(tmp_path / "paper")


def test_two_runs_of_one_seed_are_both_shown(tmp_path: Path) -> None:
    plant(tmp_path, "gan", 0, 5.0)
    plant(tmp_path, "gan", 0, 7.0, "device=cpu")
    plant(tmp_path, "hinge", 0, 4.0)
    text = text_of(tmp_path)
    assert "| gan | 1 | 5 |" in text and "| 5, 7 |" in text
    assert "gan has several runs of one seed" in text


def test_a_line_cut_by_a_kill_does_not_cost_the_run(sweep: Path) -> None:
    with (sweep / "gan-s0" / "metrics.jsonl").open("a") as stream:
        stream.write('{"images": 640')
    assert "| gan | 3 | 5 |" in text_of(sweep)


@pytest.mark.slow
def test_a_track_of_own_settings_lists_them(tmp_path: Path) -> None:
    """Under protocol=paper methods differ in settings by design: listed beside the table, not refused."""
    for loss in ("gan", "wgan-gp"):
        plant(tmp_path, loss, 0, 3.0, "protocol=paper")
    write(tmp_path)
    page = (tmp_path / "report.html").read_text()
    assert "paper: each method with its authors&#39; settings" in page
    assert ">protocol.lr</th>" in page and ">protocol.n_critic</th>" in page
    plant(tmp_path, "hinge", 0, 3.0)
    with pytest.raises(NotComparable, match=r"track is paper in gan-s0protocol=paper and 1 more, equal in hinge-s0"):
        write(tmp_path)


def test_scores_lie_along_three_costs(tmp_path: Path) -> None:
    run = plant(tmp_path, "gan", 0, 4.0, "protocol.n_critic=2", speed=50.0)
    (loaded,) = load_runs(run)
    assert loaded.curve("fd_lenet", "images")[0] == [0, 3200, 6400]
    assert loaded.curve("fd_lenet", "steps")[0] == [0, 50, 100]  # a batch of 32, twice per generator update
    assert loaded.curve("fd_lenet", "t_train")[0] == [0, 64, 128]


def test_a_folder_without_runs(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"has no run to compare\. Pass the folder of a sweep"):
        write(tmp_path)
    change(plant(tmp_path, "gan", 0, 4.0) / "status.json", status="interrupted")
    with pytest.raises(FileNotFoundError, match=r"to compare \(1 interrupted\)\. .*, or rerun the same command"):
        write(tmp_path)


def test_every_figure_belongs_to_a_method(sweep: Path) -> None:
    figures = training.by_method(load_study(sweep), ("d_loss",))
    assert [figure.title for figure in figures] == ["wgan-gp", "gan", "hinge"]
    assert all(len(re.findall(r'id="d_loss-\d-axes_\d+"', figure.svg)) == 1 for figure in figures)


@pytest.mark.parametrize(
    ("values", "scale", "ticks"),
    [
        ([1.4, 0.002, -0.0007], "symlog", [-0.001, 0, 0.001, 0.01, 0.1, 1]),
        ([1.4, 0.0], "symlog", [-0.001, 0, 0.001, 0.01, 0.1, 1]),
        ([20.0, 3.0], "log", None),
        ([-1.0, -2.0], "linear", None),
    ],
)
def test_scores_on_both_sides_of_zero_stay_apart(values: list[float], scale: str, ticks: list[float] | None) -> None:
    axes = Figure().subplots()
    axes.plot(values)
    svg.log_or_symlog(axes, values)
    assert axes.get_yscale() == scale
    assert ticks is None or axes.get_yticks() == pytest.approx(ticks)


def in_memory(**finals: list[float]) -> Study:
    """Return a study of planted scores, by method, without folders."""
    config = {"metric": {"name": "fd_lenet"}}
    runs = []
    for label, scores in finals.items():
        for seed, score in enumerate(scores):
            facts = {"score": score, "t_train": 2.0, "images": 100, "real_reference": {"fd_lenet": -0.5}}
            run = Run(
                Path(f"{label}-s{seed}"), "finished", None, label, seed, "fd_lenet", config | {"loss": label}, facts
            )
            runs.append(run)
    methods = group_by_method(runs)
    return Study(Path(), runs, methods, compare_all(methods), [])


def test_the_table_as_csv() -> None:
    """The intervals are those of the page; what is not significantly worse than the best is marked."""
    study = in_memory(
        near=[1.5, 2, 3, 4, 5, 6, 7.5, 7.5], best=[1.0, 2, 3, 4, 5, 6, 7, 8], far=[21.0, 20, 22, 23, 25, 24, 26, 28]
    )
    best, near, far, real = csv.DictReader(io.StringIO(csv_of_results(study)))
    assert [row["method"] for row in (best, near, far)] == [method.label for method in study.methods]
    assert [row["among_best"] for row in (best, near, far)] == ["yes", "yes", "no"]
    for row, method in zip((best, near, far), study.methods, strict=True):
        assert (float(row["iqm_low"]), float(row["iqm_high"])) == pytest.approx(method.interval)
    assert (best["iqm"], best["gap"], best["seconds"], best["images_per_second"]) == ("4.5", "", "2", "50")
    comparison = study.vs_best["far"]
    assert (far["gap"], far["worse_seeds"]) == ("19", "8") and float(far["p"]) == pytest.approx(comparison.p)
    assert (float(far["gap_low"]), float(far["gap_high"])) == pytest.approx(comparison.difference.interval)
    assert (real["method"], real["iqm"], real["p"]) == ("real data", "-0.5", "")


def test_the_table_as_latex() -> None:
    labels = {"wgan-gp (a_b=1)": [-1.0, -2, -3, -4], "50 % & more": [9.0, 9, 9, math.inf]}
    lines = latex.results(in_memory(**labels)).splitlines()
    assert lines[2:5] == [
        r"\begin{tabular}{lrlrlr}",
        r"\toprule",
        rf"method & IQM & {INTERVAL} & gap to best & {INTERVAL} & $p$ \\",
    ]
    assert lines[6].startswith(r"\textbf{wgan-gp (a\_b=1)} & $\mathbf{-2.5}$ & [$-")
    assert lines[7].startswith(r"\textbf{50 \% \& more} & \textbf{9} & ")
    assert lines[8:] == [r"\midrule", r"real data & $-0.5$ &  &  &  &  \\", r"\bottomrule", r"\end{tabular}"]
    rows = [line for line in lines if line.endswith(r"\\")]
    assert all(len(re.findall(r"(?<!\\)&", row)) == 5 for row in rows)


def test_numbers_in_latex() -> None:
    few = in_memory(a=[1e-5, 2e-5], b=[12345.0, 12345])
    text = latex.results(few)
    assert r"\textbf{a} & $\mathbf{1.5 \times 10^{-5}}$ & -- &" in text and r"\textbf{12,345} & --" in text
    assert latex.escape("a^b~\\{#$") == r"a\textasciicircum{}b\textasciitilde{}\textbackslash{}\{\#\$"


def test_runs_are_linked_from_the_page() -> None:
    """By a path from the page's folder, and to W&B only where a run says its page."""
    study = in_memory(gan=[1.0, 2, 3])
    assert run_headers(study)[-1] == "images/s" and all_runs(study)[0][0].link == "gan-s0/"
    for run, url in zip(study.runs, ("https://wandb.ai/me/p/runs/x", "javascript:alert(1)", None), strict=True):
        run.folder = Path("sweep") / f"{run.folder.name}#1"
        run.facts["wandb_url"] = url
    rows = all_runs(replace(study, folder=Path("sweep/by-dataset/ring")))
    assert [row[0].link for row in rows] == ["../../gan-s0%231/", "../../gan-s1%231/", "../../gan-s2%231/"]
    assert run_headers(study)[-1] == "W&B"
    assert [row[-1].link for row in rows] == ["https://wandb.ai/me/p/runs/x", None, None]


def test_a_page_that_cannot_be_written_is_refused(sweep: Path) -> None:
    (sweep / "report.html").mkdir()
    before = sorted(sweep.rglob("*"))
    with pytest.raises(Refused, match=r"report.html cannot be written \(Is a directory\)"):
        write(sweep)
    assert sorted(sweep.rglob("*")) == before


def test_a_page_of_a_folder_whose_name_is_no_text_is_written(tmp_path: Path) -> None:
    write_files(tmp_path, {"results.md": os.fsdecode(b"of \xff")})
    assert (tmp_path / "results.md").read_text() == r"of \udcff"


def test_numbers_are_short() -> None:
    assert [format_number(v) for v in (1234.5, 12.345, 0.012345, math.inf, None)] == [
        "1,234",
        "12.3",
        "0.0123",
        "–",
        "–",
    ]


def test_the_search_ranks_settings_over_all_methods(tmp_path: Path) -> None:
    for lr, finals in {"0.1": {"gan": 1.0, "wgan-gp": 100.0}, "0.2": {"gan": 4.0, "wgan-gp": 4.0}}.items():
        for loss, final in finals.items():
            plant(tmp_path, loss, 0, final, f"optimizer.lr={lr}")
    assert search.table(group_by_method(load_runs(tmp_path))) == [
        ["optimizer.lr", "geometric mean", "gan", "wgan-gp"],
        ["0.2", "4", "4", "4"],
        ["0.1", "10", "1", "100"],
    ]


def plant_two_datasets(sweep: Path) -> None:
    for dataset in ("mnist5k", "mnist"):
        for loss, final in (("gan", 4.0), ("hinge", 3.0)):
            plant(sweep, loss, 0, final, f"dataset={dataset}")


@pytest.mark.slow
def test_a_sweep_of_several_datasets_has_a_page_for_each_and_one_for_all(tmp_path: Path) -> None:
    plant_two_datasets(tmp_path)
    plant(tmp_path, "gan", 1, 4.0, "dataset=mnist")  # the datasets need not have the same runs
    broken = plant(tmp_path, "lsgan", 0, 4.0, "dataset=mnist")
    (broken / "config.yaml").write_text("[")
    (tmp_path / "runs.txt").write_text("never-s0\n")
    for _ in range(2):  # a report again finds the same runs
        done = report(tmp_path)
        assert done.returncode == 0, done.stderr
        assert "# GAN methods on 2 datasets" in done.stdout and "| method | mnist | mnist5k |" in done.stdout
    assert "2 of 7 runs did not finish (1 unreadable, 1 never begun)" in done.stdout
    assert "lsgan-s0dataset=mnist: unreadable" in done.stdout
    for dataset, runs in (("mnist", 3), ("mnist5k", 2)):
        page = tmp_path / "by-dataset" / dataset / "report.html"
        assert f'href="by-dataset/{dataset}/report.html"' in (tmp_path / "report.html").read_text()
        assert f"on {dataset}" in page.read_text() and " --time" not in page.read_text()
        assert len((page.parent / "results.csv").read_text().splitlines()) == 1 + runs


@pytest.mark.slow
def test_within_a_dataset_runs_must_be_comparable(tmp_path: Path) -> None:
    plant_two_datasets(tmp_path)
    plant(tmp_path, "lsgan", 0, 4.0, "dataset=mnist", "protocol.batch=64")
    refused = report(tmp_path)
    assert refused.returncode == 6 and refused.stderr.startswith("mnist: These runs are not comparable")
    assert not (tmp_path / "report.html").exists()


@pytest.mark.slow
def test_a_folder_of_sweeps_of_several_datasets(tmp_path: Path) -> None:
    plant_two_datasets(tmp_path / "both")
    plant(tmp_path / "one", "gan", 0, 4.0)
    done = report(tmp_path)
    assert done.returncode == 0, done.stderr
    assert "| method | both, mnist | both, mnist5k | one |" in done.stdout
    assert "[both, mnist](both/by-dataset/mnist/report.html)" in done.stdout


def test_methods_of_several_datasets_are_not_timed_together(tmp_path: Path) -> None:
    plant_two_datasets(tmp_path)
    refused = report(tmp_path, "--time")
    assert refused.returncode == 6 and "has mnist, mnist5k: make a sweep of each" in refused.stderr
