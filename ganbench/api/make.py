"""Make one run from a script or a notebook, as `python -m ganbench` makes it."""

import sys
from contextlib import ExitStack, suppress
from pathlib import Path

from hydra._internal.callbacks import Callbacks
from hydra._internal.hydra import Hydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.utils import JobStatus, run_job
from hydra.types import HydraContext, RunMode
from omegaconf import DictConfig, OmegaConf

from ganbench.api.process import alone, importable_from_here, log_lines, own_modules_anew, torch_as_at_first
from ganbench.api.run import Run
from ganbench.config.compose import hydra_of_ganbench
from ganbench.config.environment import check_wandb_variables, reject_torchrun
from ganbench.config.messages import UNREADABLE, one_line_error
from ganbench.config.overrides import reject_senseless_overrides, written_for_hydra
from ganbench.config.typed import typed_instead
from ganbench.errors import Refused
from ganbench.runs.signals import GracefulStop, Interrupted, raise_interrupted
from ganbench.sweeps.composition import without_hydra
from ganbench.sweeps.task import RunEnded, already_there, check_single, task

SEVERAL = (
    "{} several runs, and run(...) makes one: type python -m ganbench -m ... in a shell (!python in a notebook), and "
    "then compare the folder of the sweep with ganbench.compare(...)."
)


def run(*overrides: str, name: str | None = None, config_dir: str | Path | None = None) -> Run:
    """Make a run in the folder outputs/run/NAME, as `python -m ganbench OVERRIDES name=NAME` does, and return it.

    A run of that name goes on from its last checkpoint, or is only returned if it is complete. One that diverged is
    returned, too; one that fails raises its error, and what cannot be run raises Refused before anything is written.
    `config_dir` is a folder of your own options. Ctrl-C, or a notebook's stop button, saves a checkpoint first.
    """
    typed = _typed(overrides, name, config_dir)
    folder_of_options = None if config_dir is None else Path(config_dir)
    with alone(), typed_instead(typed), importable_from_here(), hydra_of_ganbench(folder_of_options) as hydra:
        try:
            config = _compose(hydra, typed)
            status = check_single(config)
        except UNREADABLE as error:
            raise Refused(one_line_error(error)) from None
        if status is None:
            _make(hydra, config)
        elif status["status"] == "failed":
            raise Refused(already_there(config, status))
        else:
            print(already_there(config, status), file=sys.stderr)
        return Run(Path(config.hydra.run.dir).absolute())


def _typed(overrides: tuple[str, ...], name: str | None, config_dir: str | Path | None) -> list[str]:
    """Return the command line of the same meaning. Raise Refused for what is no setting."""
    reject_torchrun()
    check_wandb_variables()
    if name is not None and any(isinstance(each, str) and each.startswith("name=") for each in overrides):
        raise Refused(f"name={name} is given twice; pass it once, as run(..., name={name!r}).")
    for override in overrides:
        if not isinstance(override, str):
            raise Refused(f"run({override!r}) is not a setting; pass each as a text, such as run('loss=hinge').")
        if override in ("-m", "--multirun"):
            raise Refused(SEVERAL.format(f"{override} is for"))
        if override.startswith("-"):
            raise Refused(f"{override} is a flag of the command line, and run(...) takes settings: 'loss=hinge'.")
    if config_dir is not None and not Path(config_dir).is_dir():
        raise Refused(f"config_dir={config_dir} is not a folder; pass the folder of your own options.")
    flags = [] if config_dir is None else [f"--config-dir={config_dir}"]
    return [*flags, *overrides, *([] if name is None else [f"name={name}"])]


def _compose(hydra: Hydra, typed: list[str]) -> DictConfig:
    """Compose what was typed. Raise Refused if it means several runs, and what Hydra raises."""
    overrides = written_for_hydra([argument for argument in typed if not argument.startswith("--")])
    reject_senseless_overrides(overrides)
    parsed = OverridesParser.create(config_loader=hydra.config_loader).parse_overrides(overrides)
    for override in parsed:
        if override.is_sweep_override():
            raise Refused(SEVERAL.format(f"{override.input_line} means"))
    config = hydra.compose_config("config", overrides, RunMode.RUN)
    if config.hydra.mode is RunMode.MULTIRUN:
        raise Refused(SEVERAL.format("hydra.mode=MULTIRUN is for"))
    config.hydra.mode = RunMode.RUN
    return config


def _make(hydra: Hydra, config: DictConfig) -> None:
    """Make the run as Hydra would, but for the state of the process. Raise what the run itself raises."""
    callbacks = Callbacks(config)
    stop = GracefulStop(leave=raise_interrupted)  # a second signal must not end a notebook's process
    verbose = config.hydra.verbose is True
    with ExitStack() as block:
        block.enter_context(log_lines(_logging(config.hydra.hydra_logging), verbose))

        def logged_task(cfg: DictConfig) -> float:
            block.enter_context(log_lines(_logging(config.hydra.job_logging), verbose))  # now that there is a folder
            return task(cfg, stop)

        try:
            callbacks.on_run_start(config=config, config_name="config")
        except RunEnded as ended:
            raise ended.error from None
        block.enter_context(own_modules_anew(without_hydra(config)))
        block.enter_context(torch_as_at_first())
        try:
            result = run_job(
                hydra_context=HydraContext(config_loader=hydra.config_loader, callbacks=callbacks),
                task_function=logged_task,
                config=config,
                job_dir_key="hydra.run.dir",
                job_subdir_key=None,
                configure_logging=False,
            )
        except Interrupted as interrupted:
            if interrupted.signal == "SIGINT":
                raise KeyboardInterrupt from None
            raise
        with suppress(RunEnded):  # the command line's end; here the run's own error is raised
            callbacks.on_run_end(config=config, config_name="config", job_return=result)
    if result.status == JobStatus.FAILED:
        raise result._return_value  # `return_value` would write to standard error before it raises it


def _logging(config: DictConfig) -> dict:
    settings = OmegaConf.to_container(config, resolve=True)
    assert isinstance(settings, dict)
    return settings
