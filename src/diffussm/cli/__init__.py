"""The command line: `diffussm train | sample | encode | info | convert`.

Commands import what they need when they run, so that `--help` never waits for torch. A user's
mistake, raised anywhere as ValueError or OSError, becomes one sentence and exit code 2.
"""

import sys

import typer

from diffussm import __version__
from diffussm.cli.convert import convert
from diffussm.cli.encode import encode
from diffussm.cli.info import info
from diffussm.cli.process import prepare
from diffussm.cli.sample import sample
from diffussm.cli.train import train

app = typer.Typer(
    help="Attention-free image diffusion: train, sample and size up DiffuSSM models.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
app.command()(train)
app.command()(sample)
app.command()(info)
app.command()(encode)
app.command()(convert)


@app.callback(invoke_without_command=True)
def _options(
    version: bool = typer.Option(False, "--version", help="Print the version and leave."),
) -> None:
    if version:
        typer.echo(f"diffussm {__version__}")
        raise typer.Exit


def main() -> None:
    """Run a command and leave with its exit code."""
    prepare()
    try:
        app()
    except (ValueError, OSError, ArithmeticError) as error:
        typer.echo(f"diffussm: {error}", err=True)
        sys.exit(2)
