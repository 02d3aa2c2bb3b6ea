"""`python -m ganbench.sample RUN` draws samples of a trained generator."""

import argparse
from pathlib import Path

from ganbench.errors import Refused
from ganbench.files import written_whole
from ganbench.trained.command_line import Arguments, answered, check_new, count, is_named_as_file
from ganbench.trained.folder import RunFolder, open_run, tell_if_unfinished


def main() -> None:
    """Run the command line; exit with 2 if it is refused, before anything is written."""
    with answered():
        options = _options()
        run = open_run(options.run, options.device)
        _check_kind(options, run)
        check_new(options.out)
        tell_if_unfinished(run)
        _write(options, run)
        print(f"Wrote {options.out}.")


def _options() -> argparse.Namespace:
    parser = Arguments(
        prog="python -m ganbench.sample",
        description="Draw samples of the averaged generator of a run, from its newest checkpoint.",
    )
    parser.add_argument("run", type=Path, metavar="RUN", help="folder of a run, such as outputs/run/mine")
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--n", type=count, metavar="N", help="so many samples; the first are those that the run scored")
    what.add_argument("--grid", action="store_true", help="one picture of 64 samples, those of the run's own pictures")
    what.add_argument(
        "--interpolate", action="store_true", help="one picture whose rows walk between two z along the great circle"
    )
    parser.add_argument(
        "--out",
        type=Path,
        required=True,
        help="with --n a new folder (images: 00000.png, …; points: samples.npy), or a file .npz (arr_0, uint8 "
        "[N, H, W, 3], as FID tools read it) or .npy; a picture is a .png",
    )
    parser.add_argument("--seed", type=int, help="draw other z (default: those of the run's evaluations)")
    parser.add_argument("--raw", action="store_true", help="the generator that is not averaged")
    parser.add_argument("--device", help="cpu, cuda, cuda:1 or auto (default: as the run)")
    return parser.parse_args()


def _check_kind(options: argparse.Namespace, run: RunFolder) -> None:
    """Raise Refused if what is to be drawn does not fit the data, or the name of the file."""
    suffix = options.out.suffix
    if options.n is None:
        flag = "--grid" if options.grid else "--interpolate"
        if not run.is_of_images:
            raise Refused(f"{flag} draws images, and dataset={run.cfg.dataset.name} has points; use --n 1000 instead.")
        if suffix != ".png":
            raise Refused(f"--out {options.out} must end in .png with {flag}, which draws one picture.")
    elif suffix not in (".npz", ".npy") and is_named_as_file(options.out):
        raise Refused(f"--out {options.out} must be a folder, or a file that ends in .npz or .npy, with --n.")


def _write(options: argparse.Namespace, run: RunFolder) -> None:
    # Only now, since they import torch.
    from ganbench.trained.generator import configure, load_generator
    from ganbench.trained.samples import draw, grid_picture, walks_picture, write_samples

    trained = load_generator(run, configure(run.cfg), "G" if options.raw else "average")
    seed = run.cfg.seed if options.seed is None else options.seed
    with written_whole(options.out) as out:
        if options.n is not None:
            write_samples(draw(trained, options.n, seed), options.n, out)
        else:
            picture = grid_picture if options.grid else walks_picture
            picture(trained, seed).save(out)


if __name__ == "__main__":
    main()
