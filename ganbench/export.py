"""`python -m ganbench.export RUN` writes a trained generator into a folder of its own, for use elsewhere."""

import argparse
from pathlib import Path

from ganbench.errors import Refused
from ganbench.files import written_whole
from ganbench.trained.command_line import Arguments, answered, check_new, is_named_as_file
from ganbench.trained.folder import RunFolder, open_run, tell_if_unfinished


def main() -> None:
    """Run the command line; exit with 2 if it is refused, before anything is written."""
    with answered():
        options = _options()
        run = open_run(options.run)
        out = options.out or run.folder / "export"
        _check_is_folder(out)
        check_new(out)
        tell_if_unfinished(run)
        _export(run, out)
        print(f"Wrote {out}; its README.md says how to load it.")


def _options() -> argparse.Namespace:
    parser = Arguments(
        prog="python -m ganbench.export",
        description="Write the averaged generator of a run as safetensors, with a model card and three lines to load "
        "it without Hydra and W&B.",
    )
    parser.add_argument("run", type=Path, metavar="RUN", help="folder of a run, such as outputs/run/mine")
    parser.add_argument("--out", type=Path, help="a new folder (default: export in that of the run)")
    return parser.parse_args()


def _check_is_folder(out: Path) -> None:
    """Raise Refused for the name of a file, which the folder would be mistaken for."""
    if is_named_as_file(out):
        raise Refused(f"--out {out} must be a folder, into which the weights go as generator.safetensors.")


def _export(run: RunFolder, out: Path) -> None:
    # Only now, since they import torch.
    from ganbench.trained.generator import load_generator
    from ganbench.trained.package import write_package

    trained = load_generator(run)
    with written_whole(out) as folder:
        write_package(run, trained, folder)


if __name__ == "__main__":
    main()
