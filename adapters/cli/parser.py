"""All commands of `gramian` in one parser. Neither torch nor transformers is imported, so that help comes at once."""

from __future__ import annotations

import argparse
from importlib.metadata import version

from gramian.adapters.cli.capture import add_capture
from gramian.adapters.cli.compare import add_compare
from gramian.adapters.cli.demo import add_demo
from gramian.adapters.cli.estimate import add_estimate
from gramian.adapters.cli.evaluate import add_evaluate
from gramian.adapters.cli.export import add_export
from gramian.adapters.cli.methods import add_methods
from gramian.adapters.cli.perplexity import add_perplexity
from gramian.adapters.cli.prune import add_prune
from gramian.adapters.cli.solve import add_solve
from gramian.adapters.cli.speed import add_speed
from gramian.adapters.cli.tune import add_tune
from gramian.adapters.cli.verify import add_verify
from gramian.adapters.files import STDOUT

__all__ = ["check_usage", "command_line"]

COMMANDS = (
    add_demo, add_prune, add_tune, add_methods, add_perplexity, add_evaluate, add_speed, add_capture, add_solve, add_compare,
    add_export, add_verify, add_estimate,
)  # fmt: skip


def command_line() -> argparse.ArgumentParser:
    """Build the parser of all commands."""
    parser = argparse.ArgumentParser(
        prog="gramian",
        description="Make language models sparse, one layer at a time, with a certificate on every answer.",
        epilog="`gramian COMMAND --help` explains a command. To see it all at work: gramian demo",
    )
    parser.add_argument("--version", action="version", version=f"gramian {version('gramian')}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", title="commands")
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument(
        "--quiet", action="store_true", help="results and errors only: no progress and no remarks, which go to stderr"
    )
    common.add_argument("--debug", action="store_true", help="show the traceback of an error and what libraries print")

    def command(name: str, summary: str, description: str, examples: str) -> argparse.ArgumentParser:
        """Add a command."""
        added = commands.add_parser(
            name,
            help=summary,
            description=description,
            epilog=f"examples:\n{examples}",
            formatter_class=argparse.RawDescriptionHelpFormatter,
            parents=[common],
        )
        added.set_defaults(usage_error=added.error, usage_help=added.format_help, needs_models=True)
        return added

    for add in COMMANDS:
        add(command)
    return parser


def check_usage(args: argparse.Namespace) -> None:
    """End with exit code 2, bad usage, where options contradict each other. The configurations of commands that have settings
    are set as `args.config` and `args.texts`."""
    if "check" in args:
        args.check(args)
    html = getattr(args, "html", None)
    if html is not None and html == STDOUT:
        args.usage_error("--html names a file: only --json can be written to stdout")
    if html is not None and args.json is not None and html.absolute() == args.json.absolute():
        args.usage_error("--html and --json name the same file: choose two")
