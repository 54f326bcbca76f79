"""The command line: `diffussm train | sample | evaluate | encode | info | convert | ...`.

Commands import what they need when they run, so that `--help` never waits for torch. A user's
mistake, raised anywhere as ValueError or OSError, becomes one sentence and exit code 2.
"""

import sys

import typer

from diffussm import __version__
from diffussm.cli.convert import convert
from diffussm.cli.demo import demo
from diffussm.cli.encode import encode
from diffussm.cli.env import env
from diffussm.cli.evaluate import evaluate
from diffussm.cli.figures import figures
from diffussm.cli.info import info
from diffussm.cli.process import prepare
from diffussm.cli.sample import sample
from diffussm.cli.study import study
from diffussm.cli.train import train

app = typer.Typer(
    help="Attention-free image diffusion: train, sample, measure and compare DiffuSSM models.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
app.command()(train)
app.command()(sample)
app.command()(demo)
app.command()(evaluate)
app.command()(info)
app.add_typer(figures, name="figures")
app.command()(study)
app.command()(encode)
app.command()(convert)
app.command()(env)


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
    except MemoryError:
        typer.echo("diffussm: there is not enough memory for this; ask for less", err=True)
        sys.exit(2)
