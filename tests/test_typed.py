"""What people type means what they mean by it, and what a refusal advises is accepted."""

import os
import random
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import REPOSITORY, ganbench, settings
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf
from prefork import TORCH_WAS_IMPORTED

from ganbench import __version__
from ganbench.config.messages import quoted
from ganbench.config.overrides import as_hydra_reads, written_for_hydra
from ganbench.config.validate import validate
from ganbench.errors import OTHER_NAMES, Refused
from ganbench.training.device import _check_gpu_exists

NAMES = ["~/photos", "photos(2)", "josé", "my photos", "a=b", "[x]", "{x", "it's", 'a"b', "a#b", "123", "true", "-x",
         "1e3", "a\\", "a\\'b", "007", "$x", "a;b", "a,b", "'x", "", " lead", "photos(1,2)",
         "glob(*)"]  # fmt: skip


def as_hydra_has_it(override: str) -> object:
    """Return the value that Hydra's grammar reads from an override."""
    value = OverridesParser.create().parse_override(override).value()
    return getattr(value, "text", value)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("key", ["dataset.root", "name", "wandb.group"])
def test_a_text_needs_no_quotes(key: str, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for existing in ("a,b", "photos(1,2)", "glob(*)"):  # a comma is part of what exists, and no function is meant
        (tmp_path / existing).mkdir()
    (written,) = written_for_hydra([f"{key}={name}"])
    assert as_hydra_has_it(written) == name


def test_any_text_comes_out_of_quotes_as_it_was() -> None:
    draw = random.Random(0)
    for _ in range(2000):
        text = "".join(draw.choices("ab'\"\\ ,=()[]{}:~é$#\t", k=draw.randint(0, 8)))
        assert as_hydra_has_it(f"key={quoted(text)}") == text


@pytest.mark.parametrize(
    "override",
    [
        "dataset.root=null",
        "dataset.root='a b'",
        "name=${now:%Y}",
        "dataset.root=choice(a,b)",
        "penalty.weight=1e3",
        "a=b",
    ],
)
def test_what_is_for_hydra_stays_as_it_is(override: str) -> None:
    assert written_for_hydra([override]) == [override]


def test_commas_list_texts_of_a_sweep() -> None:
    assert written_for_hydra(["dataset.root=it's,~/b,c"]) == ["dataset.root='it\\'s','~/b',c"]


def test_groups_may_be_added_as_other_programs_need() -> None:
    typed = ["+experiment=smoke", "experiment=null", "++loss=1", "+hydra/launcher=basic", "+penalty.weight=3"]
    assert written_for_hydra(typed) == ["experiment=smoke", "loss='1'", "+hydra/launcher=basic", "+penalty.weight=3"]


def test_flags_may_stand_between_overrides(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("a b").mkdir()
    read = as_hydra_reads(["loss=gan", "-m", "seed=0,1", "--config-dir", "a b", "name=x"])
    assert read == ["--multirun", "--config-dir=a b", "loss=gan", "seed=0,1", "name=x"]


def test_a_folder_of_options_is_not_taken_for_one_of_groups(tmp_path: Path) -> None:
    (tmp_path / "loss").mkdir()
    assert as_hydra_reads([f"--config-dir={tmp_path / 'loss'}"])  # which may hold groups of its own
    (tmp_path / "loss/relaxed.yaml").touch()
    with pytest.raises(Refused, match=f"options of the group loss; .*: --config-dir={tmp_path}\\.$"):
        as_hydra_reads([f"--config-dir={tmp_path / 'loss'}", "loss=relaxed"])


def test_a_folder_of_groups_may_hold_other_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "model/loss").mkdir(parents=True)
    (tmp_path / "model/environment.yaml").touch()
    (tmp_path / "environment.yaml").touch()
    assert as_hydra_reads([f"--config-dir={tmp_path / 'model'}"])
    monkeypatch.chdir(tmp_path / "model")
    assert as_hydra_reads(["--config-dir=."]) == ["--config-dir=."]
    assert as_hydra_reads(["--config-dir=.."]) == ["--config-dir=.."]
    (tmp_path / "model/loss/relaxed.yaml").touch()
    monkeypatch.chdir("loss")
    with pytest.raises(Refused, match=r"--config-dir=\. holds options of the group loss; .*: --config-dir=\.\.\.$"):
        as_hydra_reads(["--config-dir=."])


SETTING = re.compile(r"\b[a-z]+(?:\.[a-z_]+)+")
EVERYTHING = settings("dataset=folder", "dataset.root=x", "penalty=gp")


@pytest.mark.parametrize("names", OTHER_NAMES)
def test_names_of_other_programs_lead_to_settings_that_exist(names: str) -> None:
    for key in SETTING.findall(OTHER_NAMES[names]):
        assert OmegaConf.select(EVERYTHING, key, default=EVERYTHING) is not EVERYTHING, key
    for option in re.findall(r"(?<![.\w])(\w+=\w+)(?=[, ]|$)", OTHER_NAMES[names]):
        assert settings(option)
    known = [name for name in names.split() if name in EVERYTHING]
    assert all(re.search(rf"\b{name}(=|$)", OTHER_NAMES[names]) for name in known)  # which are looked for in a group


ADVICE = [
    # what is refused, what the refusal says to do, and how the command line then ends
    ("dataset=folder dataset.root=x dataset.shape=[3,64,48]", "such as [3,64,64]", "dataset.shape=[3,64,64]"),
    ("dataset=folder dataset.root=x dataset.shape=[3,64,48] model=sngan_resnet", "[3,64,64]",
     "dataset.shape=[3,64,64] model=dcgan"),
    ("dataset=folder dataset.root=x dataset.shape=[3,64,64] model=sngan_cnn", "use model=dcgan, or", "model=dcgan"),
    ("dataset=folder dataset.root=x dataset.shape=[3,33,33] model=sngan_cnn", "such as [3,32,32]",
     "dataset.shape=[3,32,32]"),
    ("dataset=ring model=dcgan", "use model=mlp.", "model=mlp"),
    ("model=mlp", "use model=dcgan, or model=sngan_resnet, or", "model=sngan_resnet"),
    ("dataset=ring metric=fid", "use metric=energy_distance.", "metric=energy_distance"),
    ("dataset=ring metric=modes_kl", "use metric=energy_distance.", "metric=energy_distance"),
    ("metric=energy_distance", "use metric=fd_lenet, or metric=fid, or metric=kid.", "metric=kid"),
    ("speed=graphs optimizer=rmsprop", "use optimizer=adam.", "optimizer=adam"),
    ("speed.fused_optimizer=true optimizer=rmsprop", "use speed.fused_optimizer=null or", "speed.fused_optimizer=null"),
    ("speed.graphs=true", "use speed=graphs, which sets both.", "speed=graphs"),
    ("dataset=ring speed=channels_last", "use false for", "speed.channels_last=false"),
    ("protocol.images=1000", "nearest: 992, 1024.", "protocol.images=992"),
    ("protocol=paper loss=minimax", "use protocol=equal, or one of", "protocol=equal"),
    ("model.generator.z_dim=3", "set model.z_dim only.", "model.generator.z_dim=3 model.z_dim=3"),
]  # fmt: skip


@pytest.mark.parametrize(("typed", "advice", "cure"), ADVICE, ids=[typed for typed, _, _ in ADVICE])
def test_what_a_refusal_advises_is_accepted(typed: str, advice: str, cure: str) -> None:
    with pytest.raises(Refused, match=re.escape(advice)):
        validate(settings(*typed.split()))
    changed = {override.partition("=")[0] for override in cure.split()}
    others = [override for override in typed.split() if override.partition("=")[0] not in changed]
    validate(settings(*others, *cure.split()))


def test_a_gpu_is_chosen_by_its_number() -> None:
    for device in ("auto", "cpu", "cuda", "cuda:1"):
        validate(settings(f"device={device}"))
    _check_gpu_exists("cuda:1", 2)
    _check_gpu_exists("cuda", 1)
    with pytest.raises(Refused, match="device=cuda:2: torch finds 2 GPUs here: cuda:0 to cuda:1; use device=cuda:N"):
        _check_gpu_exists("cuda:2", 2)
    with pytest.raises(Refused, match="device=cuda:1: torch finds 1 GPU here: cuda:0;"):
        _check_gpu_exists("cuda:1", 1)


COMPLETE = """
eval "$(ganbench -sc install=bash)"
while read -r line; do
  COMP_LINE="$line" COMP_POINT=${#line} COMP_WORDS=($line) COMP_CWORD=$((${#COMP_WORDS[@]} - 1))
  hydra_bash_completion ganbench
  echo "${COMPREPLY[*]}"
done
"""
COMPLETED = {
    "ganbench loss=lsg": "loss=lsgan loss=lsgan_pearson",
    "ganbench dataset=ring protocol.ba": "protocol.batch=",
    "ganbench loss=gan,hinge -m seed=0,1 protocol.ba": "protocol.batch=",
    "ganbench loss=lsgan loss.sc": "loss.scale=",
    "ganbench --config-dir options loss=rela": "loss=relaxed",
    "ganbench -m loss=gan --config-dir=options loss=rela": "loss=relaxed",
    "ganbench hydra.searchpath=[file://{}/options] loss=rela": "loss=relaxed",
    "ganbench loss=nothing-like-it": "",
}


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("bash"), reason="no bash")
def test_bash_completes_command_lines(tmp_path: Path) -> None:
    (tmp_path / "options/loss").mkdir(parents=True)
    (tmp_path / "options/loss/relaxed.yaml").write_text("name: relaxed\n_target_: ganbench.losses.Hinge\n")
    (tmp_path / "bin").mkdir()
    command = tmp_path / "bin/ganbench"  # as pip makes it
    command.write_text(f"#!{sys.executable}\nfrom ganbench.__main__ import main\nmain()\n")
    command.chmod(0o755)
    path = f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "-c", COMPLETE],
        input="".join(line.format(tmp_path) + "\n" for line in COMPLETED),
        env=os.environ | {"PATH": path, "PYTHONPATH": str(REPOSITORY)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert done.stdout.splitlines() == list(COMPLETED.values()), done.stderr


@pytest.mark.slow
def test_the_version_is_ganbench_s(tmp_path: Path) -> None:
    shown = ganbench("--version", cwd=tmp_path, light=True)
    assert (shown.returncode, shown.stdout, shown.stderr) == (0, f"ganbench {__version__}\n", "")


@pytest.mark.slow
def test_a_sweep_shows_the_settings_of_its_runs_instead_of_making_them(tmp_path: Path) -> None:
    sweep = ("loss=gan,wgan-gp", "-m", "protocol.lr=0.1", "seed=0,1")
    for typed, n in ((sweep, 4), (("-m", "protocol=tuned", "loss=hinge", "seed=3"), 1)):
        shown = ganbench(*typed, "--cfg", "job", cwd=tmp_path, light=True)
        assert shown.returncode == 0 and TORCH_WAS_IMPORTED not in shown.stderr, shown.stderr
        documents = [OmegaConf.create(text) for text in shown.stdout.split("--- ")[1:]]
        assert len(documents) == n
        if n == 4:
            assert [(each.loss.name, each.penalty.name, each.seed) for each in documents] == [
                ("gan", "none", 0), ("gan", "none", 1), ("wgan", "gp", 0), ("wgan", "gp", 1)
            ]  # fmt: skip
            assert {each.protocol.lr for each in documents} == {0.1}
    refused = ganbench("-m", "loss=gan,hingee", "--cfg", "job", cwd=tmp_path)
    assert refused.returncode == 2 and "loss=hingee is not an option" in refused.stderr
    assert list(tmp_path.iterdir()) == []
