"""What must be equal between runs that are compared: every field, read from what was built and loaded."""

import json
from pathlib import Path

import pytest
import torch
from conftest import REPOSITORY, report, settings

from ganbench import datasets, randomness
from ganbench.config.compose import build
from ganbench.metrics.features import LeNet
from ganbench.report.comparability import FIXES, NotComparable, check_comparable, machine_differences, mismatches
from ganbench.report.load import Run
from ganbench.training.footing import check_footing_at_end, digest, footing
from ganbench.training.players import make_players

CPU = torch.device("cpu")
SMALL = ("metric.n_fake=300", "metric.n_real=200", "metric.n_train=100", "model.width=8")


def of(*overrides: str, loaded: datasets.Data | None = None, features=None) -> dict:
    cfg = settings(*SMALL, *overrides)
    loaded = loaded or build(cfg.dataset)
    given = {"features": features} if features else {}
    metric = build(cfg.metric, name=cfg.metric.name, data=loaded, device=CPU, **given)
    players = make_players(cfg, CPU)
    return json.loads(json.dumps(footing(cfg, loaded, metric, players)))  # as a report would read it


@pytest.fixture(scope="module")
def plain() -> dict:
    return of()


def run(name: str, footing: dict, seed: int = 0) -> Run:
    method = {"loss": name.partition("-s")[0]}
    return Run(Path(name), "finished", seed=seed, footing=footing, config=method)


def other_digits() -> datasets.Data:
    digits = datasets.mnist5k()
    return datasets.Data(digits.train.flip(0), digits.test)


def other_held_out() -> datasets.Data:
    digits = datasets.mnist5k()
    return datasets.Data(digits.train, digits.test.flip(3))


class OtherNet(LeNet):
    def __init__(self):
        super().__init__()
        self.head.bias += 1


# By field, what changes it and nothing else that must be equal, beside what follows from it.
CHANGES = {
    "code": {"package": "another version"},
    "dataset": {"overrides": ["dataset.name=mine"]},
    "train_data": {"loaded": other_digits},
    "held_out_data": {"loaded": other_held_out},
    "generator": {"overrides": ["model.generator.width=4"], "also": {"generator_weights"}},
    "critic": {"overrides": ["model.critic_norm=none"], "also": {"critic_weights"}},
    "z_dim": {"overrides": ["model.z_dim=32"], "also": {"generator", "generator_weights"}},
    "init": {"overrides": ["model.init=orthogonal"], "also": {"generator_weights", "critic_weights"}},
    "images": {"overrides": ["protocol.images=6400"]},
    "batch": {"overrides": ["protocol.batch=64"], "also": {"generator_batch"}},
    "augment": {"overrides": ["augment=flip"]},
    "ema": {"overrides": ["protocol.ema=null", "protocol.ema_half_life=1000"]},
    "evaluations": {"overrides": ["protocol.evaluations=5"]},
    "precision": {"overrides": ["precision=bf16"]},
    "metric": {"overrides": ["metric.name=fd_mine"]},
    "metric_network": {"features": OtherNet},
    "n_fake": {"overrides": ["metric.n_fake=310"]},
    "n_real": {"overrides": ["metric.n_real=210"]},
    "reference": {"overrides": ["+metric.reference=train"]},
    "n_pairs": {"overrides": ["+metric.n_pairs=100"]},
    "k_neighbors": {"overrides": ["metric.k_neighbors=3"]},
    "streams": {"scheme": 2},
    "scored_on": {"overrides": ["protocol.scored_on=selection"]},
    "trials": {"overrides": ["protocol.trials=8"]},
    "space": {"overrides": ["protocol.space={lr:{of:[0.1]}}"]},
    "protocol": {"overrides": ["protocol.name=mine"]},
    "track": {"overrides": ["protocol.track=paper"]},
    "optimizer": {"overrides": ["optimizer.critic._target_=torch.optim.AdamW"], "also": {"optimizer_options"}},
    "optimizer_options": {"overrides": ["+optimizer.critic.weight_decay=0.01"]},
    "lr": {"overrides": ["protocol.lr=0.001"]},
    "betas": {"overrides": ["protocol.betas=[0.5,0.9]"]},
    "reuse_fakes": {"overrides": ["protocol.reuse_fakes=true"]},
    "flip_reals": {"overrides": ["protocol.flip_reals=true"]},
    "n_critic": {"overrides": ["protocol.n_critic=2"]},
    "lr_schedule": {"overrides": ["protocol.lr_decay=linear"]},
    "critic_start": {"overrides": ["protocol.critic_start=100"]},
    "generator_batch": {"overrides": ["protocol.generator_batch=64"]},
    "penalty_weight": {"overrides": ["penalty=gp", "penalty.weight=3"], "against": ["penalty=gp"]},
    "generator_weights": {"overrides": ["seed=1"], "also": {"critic_weights"}},
    "critic_weights": {"overrides": ["seed=1"], "also": {"generator_weights"}},
}


def test_every_field_has_a_test_and_a_fix(plain: dict) -> None:
    fields = [field for part in ("equal", "setting", "method", "start") for field in plain[part]]
    assert sorted(set(fields)) == sorted(CHANGES) == sorted(FIXES)


@pytest.mark.parametrize("field", sorted(CHANGES))
def test_a_field_that_differs_is_refused(field: str, plain: dict, monkeypatch: pytest.MonkeyPatch) -> None:
    change = dict(CHANGES[field])
    theirs = of(*change["against"]) if "against" in change else plain
    if "scheme" in change:
        monkeypatch.setattr(randomness, "SCHEME", change["scheme"])
    if "package" in change:
        monkeypatch.setattr("ganbench.runs.identity.PACKAGE_DIGEST", change["package"])
    ours = of(
        *change.get("overrides", []),
        loaded=change["loaded"]() if "loaded" in change else None,
        features=change["features"]() if "features" in change else None,
    )
    runs = [run("a", theirs), run("b", ours)]
    found = {mismatch.field: mismatch for mismatch in mismatches(runs)}
    assert set(found) == {field} | change.get("also", set())
    assert list(found[field].values.values()) == [["a"], ["b"]]
    with pytest.raises(NotComparable) as refusal:
        check_comparable(runs, ())
    assert f"  {field} is " in str(refusal.value) and f"fix: rerun with {FIXES[field]}" in str(refusal.value)
    assert f"--allow-mismatch {field}" in str(refusal.value)
    assert {m.field for m in check_comparable(runs, tuple(found))} == set(found)


@pytest.mark.parametrize("file", ["mine.py", "parts/formula.py", "parts/__init__.py", "sched.py", "extra.py"])
def test_a_method_is_one_program(file: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A user's loss that is edited between seeds, or what it imports: two programs under one name."""
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "parts").mkdir()
    (tmp_path / "parts/__init__.py").write_text("")
    (tmp_path / "parts/formula.py").write_text("MARGIN = 1\n")
    (tmp_path / "sched.py").write_text("")  # called like a module of Python's own
    (tmp_path / "extra.py").write_text("class Part: ...\n")
    (tmp_path / "mine.py").write_text("import json, sched\nfrom parts import formula\n\nclass Mine: ...\n")
    users = ["loss.name=mine", "loss._target_=mine.Mine", "+loss.parts=[{_target_: extra.Part}]"]
    before = of(*users)
    runs = [run("mine-s0", before, 0), run("mine-s1", of(*users, "seed=1"), 1), run("gan-s0", of(), 0)]
    assert mismatches(runs) == []  # methods may have files of their own
    with (tmp_path / file).open("a") as source:
        source.write("# edited\n")
    runs[1] = run("mine-s1", of(*users, "seed=1"), 1)
    (found,) = mismatches(runs)
    assert found.field == "code" and list(found.values.values()) == [["mine-s0"], ["mine-s1"]]
    with pytest.raises(NotComparable, match=r"code is \w{12} in mine-s0, \w{12} in mine-s1"):
        check_comparable(runs, ())
    assert [allowed.field for allowed in check_comparable(runs, ("code",))] == ["code"]
    check_footing_at_end(before, of(*users))  # a run is made by the code that it has imported


def test_older_runs_tell_their_code_in_their_status(plain: dict) -> None:
    older = {part: fields for part, fields in plain.items() if part != "method"}
    runs = [run(f"gan-s{seed}", older, seed) for seed in (0, 1)]
    for each, code in zip(runs, ("abc", "def"), strict=True):
        each.facts["code"] = code
    runs[1].footing = older | {"start": {}}
    assert [str(found) for found in mismatches(runs)] == ["code is abc in gan-s0, def in gan-s1"]
    runs[1].facts["code"] = "abc"
    assert mismatches(runs) == []


def test_all_methods_run_on_the_same_program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A user's metric that is edited after the runs of one method and before those of another."""
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "my_metric.py").write_text((REPOSITORY / "ganbench/metrics/images.py").read_text())
    users = "metric._target_=my_metric.ImageMetric"
    before = of(users)
    assert mismatches([run("gan", before), run("hinge", of(users, "loss=hinge"))]) == []
    with (tmp_path / "my_metric.py").open("a") as source:
        source.write("# edited\n")
    found = mismatches([run("gan", before), run("hinge", of(users, "loss=hinge"))])
    assert "code" in [mismatch.field for mismatch in found]


def test_what_is_compared_is_not_in_it(plain: dict) -> None:
    """Losses, penalties, names, folders and W&B may differ; so may the seed, with what it starts from."""
    for same in (["loss=hinge"], ["loss=dragan"], ["name=other", "wandb=disabled"]):
        assert mismatches([run("a", plain), run("b", of(*same))]) == []
    assert mismatches([run("a", plain), run("b", of("seed=1"), seed=1)]) == []
    assert mismatches([run("a", plain), run("failed before it began", {})]) == []


def test_a_player_s_own_rate_is_seen(plain: dict) -> None:
    """Read from the optimizers that were built, not from the setting above them."""
    found = mismatches([run("a", plain), run("b", of("optimizer.critic.lr=1e-5"))])
    assert [str(m) for m in found] == ['lr is 0.002 in a, {"generator": 0.002, "critic": 1e-05} in b']


def test_machines_are_noted_not_refused(plain: dict) -> None:
    other = plain | {"machine": plain["machine"] | {"threads": 2}}
    runs = [run("a", plain), run("b", other)]
    assert mismatches(runs) == []
    assert [str(m) for m in machine_differences(runs)] == ["threads is 1 in a, 2 in b"]


def test_what_a_run_stood_on_is_looked_at_again(plain: dict) -> None:
    moved = of(loaded=other_held_out())
    check_footing_at_end(plain, plain | {"start": {}})
    with pytest.raises(RuntimeError, match=r"footing: held_out_data was \w{12} before training and \w{12} after it"):
        check_footing_at_end(plain, moved)


def test_no_such_field(plain: dict) -> None:
    with pytest.raises(
        NotComparable,
        match=r"--allow-mismatch betches: there is no footing field betches. Allowed: augment, batch",
    ):
        check_comparable([run("a", plain)], ("betches",))


def test_digests_tell_values_shapes_and_types() -> None:
    x = torch.arange(6.0)
    others = [x + 1, x.view(2, 3), x.double(), x.int(), x[:5]]
    assert len({digest(y) for y in (x, *others)}) == 6
    assert digest(x) == digest(x.clone()) and digest(x, x) != digest(x)
    assert digest(x.view(2, 3).T) == digest(x.view(2, 3).T.contiguous())


@pytest.mark.slow
def test_the_command_refuses_with_a_code_of_its_own(tmp_path: Path) -> None:
    from test_report import plant

    plant(tmp_path, "gan", 0, 5.0)
    plant(tmp_path, "hinge", 0, 4.0, "protocol.batch=64")
    refused = report(tmp_path)
    assert refused.returncode == 6 and "batch is 32 in gan-s0, 64 in hinge-s0" in refused.stderr
    assert not (tmp_path / "report.html").exists()
    allowed = report(tmp_path, "--allow-mismatch", "batch")
    assert allowed.returncode == 0, allowed.stderr
    note = "Compared despite a difference in footing (--allow-mismatch batch): batch is 32 in gan-s0, 64 in hinge-"
    assert note in allowed.stdout and note in (tmp_path / "report.html").read_text()
