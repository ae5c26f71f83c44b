"""Arguments, exit codes, and errors as one line."""

from __future__ import annotations

import argparse
import math
import warnings
from collections.abc import Sequence
from typing import Any

from skgradood import __version__
from skgradood.cli._console import complain

_DESCRIPTION = (
    "Out-of-distribution detection from the score (the gradient of the log-likelihood) of deep "
    "generative models."
)
_DATA = (
    "a folder of images (searched with its subfolders), an image, a .npy or .npz file, or a .csv "
    "or .parquet table of numbers"
)
_EXIT_ERROR, _EXIT_INTERRUPTED = 1, 130
# What wrong input, too much of it, missing files and missing packages raise; anything else is a bug
# and shows its traceback.
_EXPECTED_ERRORS = (ValueError, TypeError, OSError, ImportError, RuntimeError, MemoryError)
# No count of ours comes near it, and larger ones do not fit into the integers of torch.
_LARGEST_COUNT = 2**31 - 1
_LARGEST_SEED = 2**32 - 1


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line.

    Parameters
    ----------
    argv : sequence of str, optional
        Arguments without the program's name; those of the process by default.

    Returns
    -------
    int
        Exit code: 0; 1 after an error, which is one line on stderr; 130 when interrupted. Wrong
        usage leaves with code 2 through SystemExit, as argparse does.
    """
    options = vars(_make_parser().parse_args(argv))
    command = _COMMANDS[options.pop("command")]
    with warnings.catch_warnings():
        warnings.showwarning = _show_warning
        try:
            command(**options)
        except KeyboardInterrupt:
            complain("interrupted")
            return _EXIT_INTERRUPTED
        except _EXPECTED_ERRORS as error:
            complain(f"error: {_one_line(error)}")
            return _EXIT_ERROR
    return 0


def _demo(**options: Any) -> None:
    # Imported here, as in the commands below, so that --help does not wait for torch.
    from skgradood.cli._demo import demo

    demo(**options)


def _fit(**options: Any) -> None:
    from skgradood.cli._fit import fit

    fit(**options)


def _score(**options: Any) -> None:
    from skgradood.cli._score import score

    score(**options)


def _report(**options: Any) -> None:
    from skgradood.cli._report import report

    report(**options)


_COMMANDS = {"demo": _demo, "fit": _fit, "score": _score, "report": _report}


def _make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="skgradood", description=_DESCRIPTION)
    parser.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    _add_demo(commands)
    _add_fit(commands)
    _add_score(commands)
    _add_report(commands)
    return parser


def _add_demo(commands: Any) -> None:
    parser = commands.add_parser(
        "demo",
        help="train and compare detectors on bundled digits (under a minute, no network)",
        description=(
            "Train a small VAE on the digits bundled with scikit-learn, print one table of five "
            "detectors on out-of-distribution sets, and save one figure."
        ),
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument(
        "--out", type=_path, default="demo-output", metavar="DIR", help="where the figure goes"
    )
    parser.add_argument("--epochs", type=_positive, default=15, help="passes over the digits")
    _add_seed(parser)


def _add_fit(commands: Any) -> None:
    parser = commands.add_parser(
        "fit",
        help="train a detector on in-distribution data and save it",
        description=(
            "Train a model on 60 % of TRAIN, fit the joint density of its score's layer norms on "
            "20 %, calibrate the verdict on 20 %, and save the detector. Division at random."
        ),
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("train", metavar="TRAIN", help=f"in-distribution data: {_DATA}")
    parser.add_argument(
        "--out", type=_path, required=True, metavar="FILE", default=argparse.SUPPRESS,
        help="the detector, by convention *.skg",
    )  # fmt: skip
    parser.add_argument(
        "--model",
        choices=("auto", "vae", "glow", "pixelcnn", "diffusion", "real_nvp", "spline_flow"),
        default="auto",
        help="auto: a VAE for images, RealNVP for rows",
    )
    parser.add_argument("--epochs", type=_positive, default=20, help="passes over the data")
    parser.add_argument("--batch-size", type=_positive, default=64, help="samples a batch")
    parser.add_argument("--lr", type=_rate, default=1e-3, help="learning rate")
    parser.add_argument(
        "--alpha", type=_share, default=0.05,
        help="the false-positive rate on fresh in-distribution data",
    )  # fmt: skip
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1, mps ...")
    _add_on_error(parser)
    _add_size(parser)
    _add_seed(parser)


def _add_score(commands: Any) -> None:
    parser = commands.add_parser(
        "score",
        help="judge data with a saved detector",
        description=(
            "Write a CSV with one line a sample: name (path or row number), score (higher is more "
            "normal), p_value, verdict (inlier or outlier)."
        ),
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    _add_judging(parser, "the CSV file; - writes it to standard output, and the rest to stderr")


def _add_report(commands: Any) -> None:
    parser = commands.add_parser(
        "report",
        help="show what a saved detector flags in data, and which layers speak against it",
        description=(
            "Write one HTML page, with its pictures in it: the scores, the flagged samples with "
            "the layers whose gradients are unusual, and the most normal samples."
        ),
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    _add_judging(parser, "the page, by convention *.html")
    parser.add_argument(
        "--max-shown", type=_positive, default=24, help="how many flagged samples to show at most"
    )


def _add_judging(parser: argparse.ArgumentParser, output: str) -> None:
    """Add what the commands that judge data have in common."""
    parser.add_argument("detector", metavar="DETECTOR", help="a file written by 'skgradood fit'")
    parser.add_argument("data", metavar="DATA", help=_DATA)
    parser.add_argument(
        "--out", type=_path, required=True, metavar="FILE", default=argparse.SUPPRESS, help=output
    )
    _add_on_error(parser)
    _add_size(parser)


def _add_on_error(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--on-error",
        choices=("raise", "skip"),
        default="raise",
        help="what to do with image files that cannot be read",
    )


def _add_size(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--size", type=_positive, nargs=2, metavar=("H", "W"), help="resize all images to H x W"
    )


def _add_seed(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--seed", type=_seed, default=0, help="seed of everything random")


def _path(text: str) -> str:
    if not text:
        raise argparse.ArgumentTypeError("the name is empty")
    return text


def _positive(text: str) -> int:
    return _whole(text, 1, _LARGEST_COUNT)


def _seed(text: str) -> int:
    return _whole(text, 0, _LARGEST_SEED)


def _whole(text: str, least: int, most: int) -> int:
    # Python refuses to read numbers of thousands of digits.
    number = int(text) if text.isdecimal() and len(text) <= len(str(most)) else -1
    if not least <= number <= most:
        raise argparse.ArgumentTypeError(f"{text} is not a whole number from {least} to {most}")
    return number


def _rate(text: str) -> float:
    return _between(text, 0, math.inf, "a positive number")


def _share(text: str) -> float:
    return _between(text, 0, 1, "a number between 0 and 1")


def _between(text: str, low: float, high: float, expected: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not low < number < high:
        raise argparse.ArgumentTypeError(f"{text} is not {expected}")
    return number


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def _show_warning(message: Any, *details: Any, **more: Any) -> None:
    complain(f"warning: {_one_line(message)}")
