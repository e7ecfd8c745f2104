"""Arguments that several commands have."""

from __future__ import annotations

import argparse
from collections.abc import Callable

from gramian.adapters.cli.types import path
from gramian.adapters.config.run_config import DTYPES

__all__ = ["ADDING", "REPLACING", "MakeCommand", "add_html", "add_json", "add_model", "add_output", "add_verbose"]

MakeCommand = Callable[[str, str, str, str], argparse.ArgumentParser]  # of a name, a summary, a description and examples
REPLACING = "replace the model that is in DIR; everything in DIR is deleted"
ADDING = "allow a DIR that is not empty; files of the same name are replaced"


def add_model(parser: argparse.ArgumentParser, dtype: bool = True) -> None:
    """Add the model and where and how it runs. dtype: whether its dtype is added too, where it is no setting."""
    parser.add_argument(
        "model", metavar="MODEL", help="hub id (org/name), local directory, .gguf file, or `demo` for gemma-3-270m"
    )
    parser.add_argument("--device", default="cpu", help="cpu, cuda, cuda:1, ... (default %(default)s)")
    if dtype:
        parser.add_argument(
            "--dtype",
            default="auto",
            choices=DTYPES,
            help="dtype in which weights are stored; on a CPU the model runs in float32 (default: the checkpoint's)",
        )


def add_output(
    parser: argparse.ArgumentParser, text: str, replacing: str, *, default: str | None = None, required: bool = False
) -> None:
    """Add a directory to write to. text, replacing: the help of the directory, and of replacing what it holds."""
    parser.add_argument("--out", type=path, default=default, required=required, metavar="DIR", help=text)
    parser.add_argument("--overwrite", action="store_true", help=replacing)


def add_verbose(parser: argparse.ArgumentParser) -> None:
    """Add the choice of the long table of a run."""
    parser.add_argument(
        "--verbose",
        action="store_true",
        help="print every operator, and not the kinds and the ten worst alone where there are many",
    )


def add_json(parser: argparse.ArgumentParser) -> None:
    """Add the file that results are written to."""
    parser.add_argument(
        "--json", type=path, metavar="FILE",
        help="write the results there as JSON too; with - the JSON alone is on stdout, and what stands there otherwise is on "
        "stderr",
    )  # fmt: skip


def add_html(parser: argparse.ArgumentParser) -> None:
    """Add the page that results are shown on."""
    parser.add_argument("--html", type=path, metavar="FILE", help="write the results there as a page too")
