"""`diffussm figures`: the paper's figures, and pictures of what a model has learned."""

from pathlib import Path

import typer
from typer.core import TyperGroup

from diffussm.cli.arguments import numbers
from diffussm.cli.devices import choose_device
from diffussm.cli.display import progress_bar, say
from diffussm.cli.drawing import chosen_guidance, chosen_sampling
from diffussm.config import unknown

MODELS = "DiffuSSM-XL,DiffuSSM-XL:4,DiT-XL/2,DiT-XL/1"
SIZES = "256,384,512,768,1024,1536,2048"
SHARES = (0.9, 0.99)
"""Of a kernel's energy, whose lengths `kernels` draws."""
WINDOW = 1 / 4
"""Of the signal, what the memories with a window keep."""
BRIEF = 12
"""Letters of a class name above an image."""


class _Named(TyperGroup):
    def resolve_command(self, ctx, args):
        name = args[0]
        if name not in self.commands and not name.startswith("-"):
            raise ValueError(unknown("figure", name, self.commands))
        return super().resolve_command(ctx, args)


figures = typer.Typer(
    help="Draw a figure: diffussm figures cost --out cost.svg",
    cls=_Named,
    no_args_is_help=True,
    rich_markup_mode=None,
)

OUT = typer.Option(help="File to write: .png, .svg or .pdf.")
CHECKPOINT = typer.Argument(help="A run folder or model file.")


@figures.command()
def cost(
    out: Path = OUT,
    models: str = typer.Option(
        "", help="Presets, as DiffuSSM-XL:4,DiT-XL/2; :4 is an hourglass ratio of 4."
    ),
    sizes: str = typer.Option(SIZES, help="Image sides in pixels."),
    measured: Path | None = typer.Option(
        None, help="Times to draw beside: the .json of benchmarks/crossover.py --out."
    ),
) -> None:
    """Multiply-adds over length.

    diffussm figures cost --out cost.svg
    """
    from diffussm.analysis.figures.cost import cost_figure, multiply_adds, read_measured
    from diffussm.analysis.figures.style import check_file, write_figure

    check_file(out)
    table = read_measured(measured) if measured else None
    if not models:
        models = ",".join(table.seconds) if table else MODELS
    giga = multiply_adds(models.split(","), numbers("--sizes", sizes))
    write_figure(out, cost_figure(giga, table))
    say(f"multiply-adds of {len(giga)} models in {out}")


@figures.command()
def training(
    runs: list[Path] = typer.Argument(help="Folders of runs."),
    out: Path = OUT,
) -> None:
    """Loss and distances over images.

    diffussm figures training runs/a runs/b --out a-b.png
    """
    from diffussm.analysis.figures.style import check_file, write_figure
    from diffussm.analysis.figures.training import training_figure
    from diffussm.analysis.records import read_record

    check_file(out)
    records = {name: read_record(run) for name, run in zip(_names(runs), runs, strict=True)}
    write_figure(out, training_figure(records))
    say(f"the training of {len(records)} runs in {out}")


@figures.command("same-noise")
def same_noise(
    checkpoints: list[Path] = typer.Argument(help="Run folders or model files, a row each."),
    out: Path = OUT,
    seeds: str = typer.Option("0-7", help="Seeds, each a column: 0-7 or 1,5,9."),
    classes: str | None = typer.Option(None, help="Class numbers, in turn over seeds: 3,7 or 0-9."),
    sampler: str | None = typer.Option(None, help="ddpm, ddim or dpm++; else each model's usual."),
    steps: int | None = typer.Option(None, help="Calls of the network; else the usual."),
    guidance: float | None = typer.Option(None, help="Scale of guidance; else the usual."),
    device: str = typer.Option("auto", help="auto, cpu, cuda, cuda:1, mps."),
) -> None:
    """The same noise in several models.

    diffussm figures same-noise runs/a runs/b --out ab.png
    """
    columns = numbers("--seeds", seeds)
    chosen = None if classes is None else numbers("--classes", classes)
    from diffussm.analysis.figures.same_noise import check_columns, same_noise_figure
    from diffussm.analysis.figures.style import check_file, write_figure
    from diffussm.analysis.same_noise import check_comparable
    from diffussm.analysis.same_noise import same_noise as drawn
    from diffussm.generation import load, to_uint8

    check_file(out)
    check_columns(len(columns))
    where = choose_device(device)
    models = {
        name: load(path, where) for name, path in zip(_names(checkpoints), checkpoints, strict=True)
    }
    check_comparable(models)
    configs = {name: model.config for name, model in models.items()}
    ways = {
        name: chosen_sampling(config.sampling, sampler, steps, None)
        for name, config in configs.items()
    }
    scales = {
        name: chosen_guidance(config.guidance, guidance, None, None)
        for name, config in configs.items()
    }
    with progress_bar("sampling", 100) as show:
        images = drawn(
            models,
            columns,
            chosen,
            sampling=ways,
            guidance=None if guidance is None else scales,
            progress=lambda done, total: show(100 * done // total, f"{len(models)} models"),
        )
    first = next(iter(models.values()))
    labels, class_names = first.labels(len(columns), chosen), first.config.class_names
    captions = [f"seed {seed}" for seed in columns]
    if labels:
        said = [class_names[label] if class_names else str(label) for label in labels]
        captions = [
            f"class {_brief(name)}\n{seed}" for name, seed in zip(said, captions, strict=True)
        ]
    pixels = {name: to_uint8(found) for name, found in images.items()}
    write_figure(out, same_noise_figure(pixels, captions))
    say(f"{len(columns)} seeds through {len(pixels)} models in {out}")


@figures.command()
def kernels(
    checkpoint: Path = CHECKPOINT,
    out: Path = OUT,
    layer: int = typer.Option(0, help="Number of the block whose kernels are drawn, from 0."),
) -> None:
    """What layers remember.

    diffussm figures kernels runs/digits --layer 3 --out kernels.svg
    """
    from diffussm.analysis import inside
    from diffussm.analysis.figures.kernels import kernels_figure
    from diffussm.analysis.figures.style import check_file, write_figure
    from diffussm.checkpoint import load_model

    check_file(out)
    network, _ = load_model(checkpoint)
    ways = inside.directions(network)
    learned = {way: inside.kernels(network, layer, way) for way in ways}
    memories = {
        share: {way: inside.memory_by_block(network, way, share) for way in ways}
        for share in SHARES
    }
    write_figure(out, kernels_figure(layer, learned, memories))
    for way in ways:
        middle = memories[SHARES[0]][way][layer].median()
        say(f"{way}: half of the channels of block {layer} remember {middle} positions or more")
    say(f"kernels in {out}")


@figures.command()
def hippo(
    out: Path = OUT,
    states: str = typer.Option("4,8,16,32,48,64", help="State sizes, even, up to 1024."),
    length: int = typer.Option(1000, help="Samples of the signal, up to 100000."),
    periods: int = typer.Option(12, help="Periods of its fastest wave."),
    seed: int = typer.Option(0, help="Another signal."),
) -> None:
    """What HiPPO remembers of a signal.

    diffussm figures hippo --out hippo.svg
    """
    grown = numbers("--states", states)
    from diffussm.analysis.figures.hippo import band_limited, hippo_figure, recalled
    from diffussm.analysis.figures.style import check_file, write_figure
    from diffussm.ssm.reconstruction import MEMORIES

    check_file(out)
    signal = band_limited(length, periods, seed)
    windows = {memory: None if memory == "legs" else int(length * WINDOW) for memory in MEMORIES}
    found = {memory: recalled(signal, memory, grown, window) for memory, window in windows.items()}
    write_figure(out, hippo_figure(signal, found))
    for memory, past in found.items():
        errors = "  ".join(f"N = {state}: {error:.1e}" for state, error in past.errors().items())
        say(f"{memory:8} {errors}")
    say(f"what they recall in {out}")


def _brief(name: str) -> str:
    return name if len(name) <= BRIEF else name[: BRIEF - 1] + "…"


def _names(paths: list[Path]) -> list[str]:
    """What to call runs: the last parts of their paths, as many as tell them apart."""
    whole = [path.absolute() for path in paths]
    whole = [path.parent if path.name == "model.safetensors" else path for path in whole]
    for path in whole:
        if whole.count(path) > 1:
            raise ValueError(f"{path} is given twice; give each once")
    depth = 1
    while len({path.parts[-depth:] for path in whole}) < len(whole):
        depth += 1
    return ["/".join(path.parts[-depth:]) for path in whole]
