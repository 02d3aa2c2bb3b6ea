"""From Python: a run is made as on the command line, in a process that goes on as it was; and what is made of it."""

import json
import logging
import math
import os
import random
import re
import runpy
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import hydra
import numpy as np
import pandas as pd
import pytest
import torch
from conftest import DYING_LOSSES, RAISING_LOSS, REPOSITORY, RING, add_losses, ganbench, rows
from hydra.core.global_hydra import GlobalHydra
from safetensors import safe_open

from ganbench import compare, load, run
from ganbench.api.process import alone
from ganbench.api.sweep import Sweep
from ganbench.errors import Refused
from ganbench.report.comparability import NotComparable
from ganbench.report.pages.sweep import page
from ganbench.report.study import load_datasets
from ganbench.runs import checkpoint, signals
from ganbench.trained.evaluations import FILE

pytestmark = pytest.mark.slow

SHORT = (*RING, "protocol.images=640")
OWN_LOSSES = f"""
{DYING_LOSSES}{RAISING_LOSS}
import time


class Interrupts(GAN):
    calls = 0
    signals = 1
    def d(self, real, fake):
        self.calls += len(real) == 32
        if self.calls == 5 and os.path.exists("interrupt"):
            for _ in range(int(open("interrupt").read())):
                os.kill(os.getpid(), signal.SIGINT)
                time.sleep(0.1)
        return super().d(real, fake)
"""


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a run from the command line, and a sweep over two datasets, which no test changes."""
    folder = tmp_path_factory.mktemp("api")
    sweep = ("-m", *SHORT, "dataset=ring,grid", "loss=gan,wgan-gp", "seed=0,1", "name=both")
    for arguments in ((*SHORT, "name=typed"), sweep):
        done = ganbench(*arguments, cwd=folder)
        assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture
def here(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of that folder as the current one, with losses of a user's own."""
    folder = shutil.copytree(made, tmp_path / "here")
    monkeypatch.chdir(folder)
    return add_losses(folder, OWN_LOSSES)


@pytest.fixture
def typed(here: Path) -> Path:
    return here / "outputs/run/typed"


def log_of(folder: Path) -> str:
    """A run's log without times and speeds, and its own name."""
    text = re.sub(r"^\S+ |[\d,]+ images/s", "", (folder / "ganbench.log").read_text(), flags=re.MULTILINE)
    return text.replace(folder.name, "NAME")


def test_a_run_is_what_the_command_line_makes(typed: Path, capsys: pytest.CaptureFixture) -> None:
    made = run(*SHORT, name="api")
    assert rows(made.folder) == rows(typed) and log_of(made.folder) == log_of(typed)
    assert capsys.readouterr().out.splitlines() == (made.folder / "ganbench.log").read_text().splitlines()
    for file in ("footing.json", "config.yaml", ".hydra/config.yaml"):
        assert (made.folder / file).read_text().replace("api", "typed") == (typed / file).read_text()
    ours, theirs = (json.loads((folder / "status.json").read_text()) for folder in (made.folder, typed))
    assert ours["command"] == theirs["command"].replace("typed", "api") and ours["code"] == theirs["code"]
    assert (made.status, made.score()) == ("finished", ours["score"])
    again = run(*SHORT, name="api")
    assert "outputs/run/api already contains this run: finished" in capsys.readouterr().err
    assert again.folder == made.folder and rows(again.folder) == rows(typed)


@pytest.fixture
def odd_process(tmp_path: Path) -> Iterator[None]:
    """The state of a process in which a user has set what a run sets, too, with another application of Hydra alive."""
    (tmp_path / "app").mkdir()
    (tmp_path / "app/config.yaml").write_text("a: 1\n")
    torch.set_default_dtype(torch.float64)
    torch.set_num_threads(2)
    torch.use_deterministic_algorithms(True, warn_only=True)
    log = logging.FileHandler(tmp_path / "users.log", mode="w")
    logging.getLogger().addHandler(log)
    try:
        with hydra.initialize_config_dir(str(tmp_path / "app"), version_base="1.2"), torch.no_grad():
            yield
            logging.getLogger("users").warning("a line of the user's own")
            assert (tmp_path / "users.log").read_text() == "a line of the user's own\n"
            assert hydra.compose("config") == {"a": 1}
    finally:
        logging.getLogger().removeHandler(log)
        log.close()
        torch.use_deterministic_algorithms(False)
        torch.set_num_threads(1)
        torch.set_default_dtype(torch.float32)


def state_of_process() -> dict[str, object]:
    return {
        "hydra": id(GlobalHydra.instance().hydra),
        "base": str(hydra.version.getbase()),
        "handlers": list(logging.getLogger().handlers),
        "level": logging.getLogger().level,
        "folder": os.getcwd(),
        "arguments": list(sys.argv),
        "path": list(sys.path),
        "modules": {name for name in sys.modules if name == "own_losses"},
        "signals": [signal.getsignal(number) for number in signals.SIGNALS],
        "threads": torch.get_num_threads(),
        "dtype": torch.get_default_dtype(),
        "deterministic": torch.is_deterministic_algorithms_warn_only_enabled(),
        "multithreading": torch._C._is_multithreading_enabled(),
        "gradients": torch.is_grad_enabled(),
        "torch": torch.get_rng_state().tolist(),
        "numpy": np.random.get_state()[1].tolist(),
        "python": random.getstate(),
    }


@pytest.mark.usefixtures("odd_process")
def test_a_process_is_afterwards_as_it_was_and_does_not_change_the_run(typed: Path) -> None:
    before = state_of_process()
    made = run(*SHORT, "loss._target_=own_losses.GAN", name="odd")
    assert rows(made.folder) == rows(typed)
    made.sample(3)
    made.score("energy_distance", "metric.n_fake=256", "metric.n_real=256")
    with pytest.raises(RuntimeError, match="a loss of my own"):
        run(*SHORT, "loss=raises", name="raises", config_dir="mine")
    with pytest.raises(Refused):
        run("loss=hing")
    assert state_of_process() == before


@pytest.mark.parametrize("times", [1, 2], ids=["once", "again"])
def test_an_interrupt_saves_and_the_process_goes_on(
    times: int, here: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture
) -> None:
    """At once and unsaved if it comes again, three seconds later, which this test need not wait for."""
    monkeypatch.setattr(signals, "ONE_SIGNAL", 0.0)
    Path("interrupt").write_text(str(times))
    command = (*SHORT, "loss._target_=own_losses.Interrupts", "checkpoint_every=100000")
    with pytest.raises(KeyboardInterrupt):
        run(*command, name="cut")
    assert "SIGINT: saving" in capfd.readouterr().err
    cut = load("outputs/run/cut")
    assert cut.status == "interrupted" and checkpoint.load(cut.folder)["step"] == (5 if times == 1 else 0)
    Path("interrupt").unlink()
    whole = run(*command, name="whole")
    assert run(*command, name="cut").score() == whole.score() and rows(cut.folder) == rows(whole.folder)


def test_a_thread_makes_a_run_and_only_one_at_a_time(typed: Path) -> None:
    found: list = []
    thread = threading.Thread(target=lambda: found.append(run(*SHORT, name="threaded")))
    thread.start()
    thread.join()
    assert rows(found[0].folder) == rows(typed)
    with alone(), pytest.raises(Refused, match="Another thread of this process makes or uses a run"):
        run(*SHORT, name="second")
    assert not Path("outputs/run/second").exists()


def test_one_that_diverged_is_returned_and_one_that_failed_raises(here: Path) -> None:
    diverged = run(*SHORT, "loss=explodes", name="explodes", config_dir="mine")
    assert (diverged.status, diverged.score(), diverged.method) == ("diverged", math.inf, "explodes")
    assert "g_loss was nan" in repr(diverged)
    with pytest.raises(RuntimeError, match="a loss of my own went wrong"):
        run(*SHORT, "loss=raises", name="raises", config_dir="mine")
    assert load("outputs/run/raises").status == "failed"
    with pytest.raises(Refused, match=r"failed .* rerun with retry=true"):
        run(*SHORT, "loss=raises", name="raises", config_dir="mine")


def test_one_that_is_refused_once_its_data_are_there_raises(here: Path, capfd: pytest.CaptureFixture) -> None:
    Path("pairs.py").write_text("import torch\ndef pair(shape): return torch.ones(9, 2), torch.ones(9, 2)\n")
    with pytest.raises(Refused, match=r"must return a ganbench\.datasets\.Data"):
        run(*SHORT, "dataset._target_=pairs.pair", "~dataset.n", "~dataset.modes", "~dataset.radius", "~dataset.std")
    assert "must return" not in capfd.readouterr().err  # the error says it


def test_code_of_ones_own_is_read_again_once_it_has_changed(here: Path) -> None:
    loss = "from ganbench.losses import GAN\nclass Scaled(GAN):\n    def g(self, fake): return {} * super().g(fake)\n"
    first = {}
    for scale in (2, 30):
        Path("scaled.py").write_text(loss.format(scale))
        made = run(*SHORT, "loss._target_=scaled.Scaled", name=f"scaled-{scale}")
        first[scale] = made.metrics()["g_loss"].dropna().iloc[0], made.facts["code"]
    assert first[30][0] > 10 * first[2][0] and first[30][1] != first[2][1]


REFUSED = [
    (("loss=gan,hinge",), "loss=gan,hinge means several runs, and run(...) makes one: type python -m ganbench -m"),
    (("loss=glob(*)",), "loss=glob(*) means several runs"),
    (("hydra.mode=MULTIRUN",), "hydra.mode=MULTIRUN is for several runs"),
    (("-m", "loss=gan"), "-m is for several runs"),
    (("--cfg=job",), "--cfg=job is a flag of the command line"),
    ((3,), "run(3) is not a setting"),
    (("loss=hing",), "loss=hing is not an option; use loss=hinge, or one of: dragan, gan, hinge"),
    (("protocol.lr=-1",), "protocol.lr=-1 must be a finite number > 0."),
    (("protocol.lr=fast",), "protocol.lr=fast must be a number."),
    (("+protocol.lrr=1",), "protocol.lrr: unknown setting; did you mean lr?"),
    (("loss._target_=__main__.Loss",), "write it into one, such as mine.py, and name it mine.Loss."),
    (("protocol=tuned-2d", "dataset=ring"), "protocol=tuned-2d is a search, which needs -m"),
    (("name=other",), "name=refused is given twice; pass it once"),
]


@pytest.mark.parametrize(("overrides", "sentence"), REFUSED, ids=[str(overrides) for overrides, _ in REFUSED])
def test_what_cannot_be_run_is_refused_in_one_sentence(
    overrides: tuple, sentence: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(Refused) as refusal:
        run(*overrides, name="refused")
    expected = sentence.replace("dragan, gan, hinge", "dragan, gan, lsgan")  # the nearest is named once
    assert expected in str(refusal.value) and "\n" not in str(refusal.value)
    assert list(tmp_path.iterdir()) == []


def test_a_run_is_used_as_by_the_command_lines(typed: Path) -> None:
    made = load(typed)
    commands = (
        ("sample", "--n", "300", "--out", "samples.npy"),
        ("sample", "--n", "20", "--seed", "7", "--out", "others.npy"),
        ("export", "--out", "typed-export"),
    )
    for module, *options in commands:
        assert ganbench(str(typed), *options, cwd=Path.cwd(), module=f"ganbench.{module}").returncode == 0
    assert (made.sample(300) == np.load("samples.npy")).all()
    assert (made.sample(20, seed=7) == np.load("others.npy")).all()
    settings = ("metric.n_fake=256", "metric.n_real=256")
    scores = [made.score("energy_distance", *settings) for _ in range(2)]
    assert scores == [made.score()] * 2 and (typed / FILE).read_text().count("\n") == 1
    made.save("api-export")
    weights = Path("typed-export/generator.safetensors").read_bytes()
    assert Path("api-export/generator.safetensors").read_bytes() == weights
    assert made.save("weights.safetensors").read_bytes() == weights
    with safe_open("weights.safetensors", "pt") as file:
        assert json.loads(file.metadata()["config"])["z_dim"] == made.config.model.z_dim
    z = torch.linspace(-1, 1, 3 * made.config.model.z_dim).view(3, -1)
    elsewhere = runpy.run_path("api-export/load_generator.py")["load"]("api-export")
    assert torch.equal(made.generator(z), elsewhere(z)) and not made.generator(z).requires_grad
    with pytest.raises(Refused, match=r"^weights.safetensors already exists"):
        made.save("weights.safetensors")


def test_the_records_are_a_row_for_each_number_of_images(typed: Path) -> None:
    table = load(typed).metrics()
    assert list(table["images"]) == sorted({row["images"] for row in rows(typed)})
    for row in rows(typed):
        (found,) = table[table["images"] == row["images"]].to_dict("records")
        assert {name: found[name] for name in row if row[name] is not None} == without_none(row)


def without_none(row: dict) -> dict:
    return {name: value for name, value in row.items() if value is not None}


def test_what_a_notebook_shows_of_a_run(typed: Path) -> None:
    made = load(typed)
    assert repr(made).startswith(f"<gan on ring: finished, energy_distance {made.score():.4g} (real data: ")
    assert "<img" in made._repr_html_() and "outputs/run/typed" in made._repr_html_()


@pytest.mark.parametrize(
    ("use", "sentence"),
    [
        (lambda: load("lost"), "lost is not a folder"),
        (lambda: load("outputs/sweep/both"), "is the folder of several runs"),
        (lambda: load("damaged"), "config.yaml cannot be read"),
        (lambda: load("outputs/run/typed", device="gpu"), "device=gpu must be one of"),
        (lambda: load("outputs/run/typed").sample(0), "the number of samples must be a whole number, 1 or more"),
        (lambda: load("outputs/run/typed").score("fid"), "metric=fid needs images"),
        (lambda: load("outputs/run/typed").score("fidd"), "metric=fidd is not an option; use metric=fid"),
        (lambda: load("outputs/run/typed").save("outputs/run"), "outputs/run already exists"),
        (lambda: load("outputs/run/typed").save("G.bin"), "G.bin must end in .safetensors, for the"),
        (lambda: load("outputs/run/typed").sample("9"), "sample('9'): the number of samples must be a whole number"),
        (lambda: load("outputs/run/typed").sample(9, "x"), "seed='x' must be a whole number"),
        (lambda: load("outputs/run/typed", device=0), "device=0 must be a text, such as 'cpu'"),
        (lambda: load(None), "load(None) is no folder; pass that of a run"),
        (lambda: compare(3), "compare(3) is no folder; pass that of a sweep"),
        (lambda: compare("lost"), "lost is not a folder; pass the folder of a sweep"),
        (lambda: compare("mine"), "mine has no run to compare"),
        (
            lambda: compare("outputs/sweep/both").verdict,
            "both has grid, ring; choose one: compare(...)['grid']",
        ),
        (lambda: compare("outputs/sweep/both")["rings"], "has no rings; it has: grid, ring."),
        (lambda: compare("outputs/run/typed").plot_curves(axis="hours"), "must be one of: images, updates, seconds."),
        (lambda: compare("outputs/run/typed").plot("finale"), "has no figure finale; it has: finals, "),
    ],
)
def test_wrong_uses_are_refused_in_one_sentence(use, sentence: str, here: Path) -> None:
    shutil.copytree("outputs/run/typed", "damaged")
    Path("damaged/config.yaml").write_text("a: [")
    before = sorted(path for path in here.rglob("*"))
    with pytest.raises(Refused) as refusal:
        use()
    assert sentence in str(refusal.value) and "\n" not in str(refusal.value)
    assert sorted(path for path in here.rglob("*")) == before


@pytest.fixture(scope="module")
def sweep(made: Path) -> Sweep:
    return compare(made / "outputs/sweep/both")


def test_the_table_has_a_row_for_each_evaluation(sweep: Sweep) -> None:
    table = sweep.table()
    folders = [folder for folder in sweep.folder.iterdir() if (folder / "metrics.jsonl").exists()]
    expected = {}
    for folder in folders:
        for row in rows(folder):
            if "energy_distance" in row:
                expected[folder.name, row["images"]] = row["energy_distance"]
    found = {(row.run, row.images): row.score for row in table.itertuples()}
    assert len(table) == len(expected) == 8 * 3 and found == expected
    assert set(table["dataset"]) == {"ring", "grid"} and set(table["method"]) == {"gan", "wgan-gp"}
    assert (table["updates"] == table["images"] // 32).all() and (table["seconds"].diff().dropna() != 0).any()
    assert pd.api.types.is_float_dtype(table["modes"]) and set(table["seed"]) == {0, 1}


def test_the_statistics_are_the_report_s(sweep: Sweep) -> None:
    studies, _ = load_datasets(sweep.folder)
    for study in studies:
        ours = sweep[study.dataset]
        assert [method.label for method in ours.methods] == [method.label for method in study.methods]
        assert [method.iqm for method in ours.methods] == [method.iqm for method in study.methods]
        assert [pair.difference for pair in ours.pairs] == [pair.difference for pair in study.comparisons]
        assert ours.verdict.splitlines() == study.verdict
        assert list(ours.results()["method"]) == [method.label for method in study.methods]


def test_every_figure_of_the_page_is_drawn_on_axes(sweep: Sweep) -> None:
    import matplotlib

    matplotlib.use("agg")
    import matplotlib.pyplot as plt

    ring = sweep["ring"]
    shown = re.findall(r'<svg[^>]* aria-label="([^"]*)"', page(ring.study))
    assert sorted(shown) == sorted(f"{figure.title}. {figure.description}" for figure in ring.figures.values())
    for name in ring.figures:
        plt.close("all")
        _, axes = plt.subplots()
        assert ring.plot(name, axes) is axes and (axes.lines or axes.patches) and axes.get_title()
    best = ring.methods[0]
    dots = next(line for line in ring.plot_scores().lines if line.get_marker() == "o")
    assert list(dots.get_xdata()) == best.finite_scores
    labels = [text.get_text() for text in ring.plot_curves(axis="seconds").get_legend().get_texts()]
    assert labels == [method.label for method in ring.methods]
    assert ring.plot_gaps().get_xlabel().endswith(f"minus that of {best.label}") and ring.plot_profile().lines
    plt.close("all")


def test_what_a_notebook_shows_of_a_sweep(sweep: Sweep) -> None:
    shown = sweep._repr_html_()
    assert shown.count("<table>") == 2 and shown.count("<td>wgan-gp</td>") == 2
    assert repr(sweep).count("2 GAN methods on ") == 2


def test_runs_that_differ_in_more_than_the_loss_are_refused_as_by_the_report(here: Path) -> None:
    file = here / "outputs/sweep/both"
    (run_of_ring,) = file.glob("gan*ring*s0")
    footing = json.loads((run_of_ring / "footing.json").read_text())
    footing["equal"]["batch"] = 33
    (run_of_ring / "footing.json").write_text(json.dumps(footing))
    with pytest.raises(NotComparable, match=r"add allow_mismatch=\['batch'\]$"):
        compare(file)
    assert any("batch" in note for note in compare(file, allow_mismatch="batch").notes)


def test_a_sweep_without_a_finished_run_is_refused(here: Path) -> None:
    for folder in (here / "outputs/sweep/both").glob("*-s?"):
        status = json.loads((folder / "status.json").read_text())
        (folder / "status.json").write_text(json.dumps(status | {"status": "interrupted"}))
    with pytest.raises(Refused, match=r"has no run to compare \(8 interrupted\)"):
        compare("outputs/sweep/both")


@pytest.mark.parametrize("document", ["README.md", "ganbench/api/README.md"])
def test_what_the_documents_show_works(document: str, here: Path) -> None:
    """With the settings of a quick check, and the sweep that is here."""
    text = (REPOSITORY / document).read_text(encoding="utf-8")
    shown = re.findall(r"^```python\n((?:from|import) ganbench.*?)^```", text, re.DOTALL | re.MULTILINE)
    assert shown
    for code in shown:
        code = code.replace("name=", "*SHORT, name=").replace("outputs/sweep/mine", "outputs/sweep/both")
        names: dict = {"SHORT": SHORT}
        exec(code, names)
        assert names.get("cfg", {"penalty": {"name": "gp"}})["penalty"]["name"] == "gp"
    assert list(here.glob("outputs/run/[om]*/status.json"))


OTHER_USE_OF_HYDRA = """
import hydra
from pathlib import Path
Path("app").mkdir()
Path("app/config.yaml").write_text("a: 1")
with hydra.initialize_config_dir(str(Path("app").resolve()), version_base="1.3"):
    hydra.compose("config")  # Hydra has looked for its plugins by now
import ganbench
try:
    with hydra.initialize_config_dir(str(ganbench.CONF), version_base="1.3"):
        hydra.compose("config")
except hydra.errors.HydraException as error:
    assert "schema" in str(error)
else:
    raise SystemExit("so register would not be needed")
"""


def test_the_notebook_runs_as_written_after_other_use_of_hydra(tmp_path: Path) -> None:
    notebook = f"import runpy\nrunpy.run_path({str(REPOSITORY / 'tests/notebook.py')!r})"
    done = from_scratch(OTHER_USE_OF_HYDRA + notebook, tmp_path)
    assert done.returncode == 0, done.stderr
    assert "has the lowest final energy_distance" in done.stdout and "significant: False" in done.stdout
    assert (tmp_path / "comparison.png").read_bytes().startswith(b"\x89PNG")
    assert json.loads((tmp_path / "outputs/run/relaxed/status.json").read_text())["status"] == "finished"


COMPOSE = """
ganbench.register()
with hydra.initialize_config_dir(str(ganbench.CONF), version_base="1.3"):
    overrides = ["loss=wgan-gp", "protocol.betas=[0.1,0.9]", "~metric.n_fake"]
    cfg = hydra.compose("config", overrides, return_hydra_config=True)
print(cfg.penalty.name, cfg.protocol.betas, "n_fake" in cfg.metric, cfg.hydra.sweeper._target_)
"""


@pytest.mark.parametrize("before", ["import hydra, ganbench\n", OTHER_USE_OF_HYDRA], ids=["first", "after others"])
def test_hydras_compose_api_composes_ganbench(before: str, tmp_path: Path) -> None:
    done = from_scratch(before + COMPOSE, tmp_path)
    assert done.stdout == "gp [0.1, 0.9] False hydra_plugins.ganbench_sweep.CheckedSweeper\n", done.stderr


def from_scratch(script: str, cwd: Path) -> subprocess.CompletedProcess:
    """Run a script in a process that shares nothing with this one."""
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY), "MPLBACKEND": "agg"}
    return subprocess.run([sys.executable, "-c", script], cwd=cwd, env=environment, capture_output=True, text=True)
