"""`diffussm sample`: from a checkpoint and seeds to pictures."""

from pathlib import Path

import typer

from diffussm.cli.arguments import numbers, pair
from diffussm.cli.devices import choose_device
from diffussm.cli.display import progress_bar, say
from diffussm.cli.drawing import chosen_guidance, chosen_sampling


def sample(
    checkpoint: Path = typer.Argument(help="A run folder or model file."),
    out: Path | None = typer.Option(None, help="PNG file for a grid of all images."),
    images: Path | None = typer.Option(None, help="Folder for one PNG an image, named by seed."),
    npz: Path | None = typer.Option(None, help="File for the array that ADM's evaluator reads."),
    seeds: str = typer.Option("0-63", help="Seeds, each an image: 0-63 or 1,5,9."),
    classes: str | None = typer.Option(None, help="Class numbers, in turn over seeds: 3,7 or 0-9."),
    sampler: str | None = typer.Option(None, help="ddpm, ddim or dpm++; else the model's usual."),
    steps: int | None = typer.Option(None, help="Calls of the network; else the sampler's usual."),
    eta: float | None = typer.Option(None, help="Fresh noise of ddim, 0 to 1."),
    guidance: float | None = typer.Option(None, help="Scale of guidance; 1 for none."),
    interval: str | None = typer.Option(
        None, help="Guide only between these shares of the process, as 0.1,0.8."
    ),
    guidance_channels: int | None = typer.Option(
        None, help="Guide only the first channels (DiT's published samples: 3)."
    ),
    size: str | None = typer.Option(None, help="Height x width to draw, as 8x16; else as trained."),
    autoencoder: str | None = typer.Option(
        None, help="Folder or Hub name of what decodes latents; else the one the model names."
    ),
    rate: float = typer.Option(
        1.0, help="Step of the state space layers, 1 as trained; 0.5 at twice the trained width."
    ),
    batch_size: int = typer.Option(100, help="Images at a time; does not change them."),
    device: str = typer.Option("auto", help="auto, cpu, cuda, cuda:1, mps."),
) -> None:
    """Draw images: diffussm sample runs/digits --out grid.png --classes 3,7 --guidance 2

    Seed i gives the same image whatever the batch.
    """
    if not (out or images or npz):
        raise ValueError("nothing to write: give --out grid.png, --images FOLDER or --npz FILE")
    drawn_seeds = numbers("--seeds", seeds)
    from diffussm.checkpoint import make_folder
    from diffussm.generation import (
        load,
        sample_sheet,
        to_uint8,
        write_images,
        write_npz,
        write_png,
    )
    from diffussm.ssm.layer import resample

    model = load(checkpoint, choose_device(device), autoencoder)
    resample(model.model, rate)
    wanted = chosen_sampling(model.config.sampling, sampler, steps, eta)
    guided = chosen_guidance(model.config.guidance, guidance, interval, guidance_channels)
    chosen = None if classes is None else numbers("--classes", classes)
    labels = model.labels(len(drawn_seeds), chosen)
    shape = None if size is None else pair("--size", size, "x", int)
    _ = model.autoencoder  # now, like the folders: a mistake should not wait for the drawing
    for file in (out, npz):
        if file and (not file.name or file.is_dir()):
            raise ValueError(f"{file} is a folder; --out and --npz need the name of a file")
    for folder in (images, out and out.parent, npz and npz.parent):
        if folder:
            make_folder(folder)

    calls = wanted.total * -(-len(drawn_seeds) // max(batch_size, 1))
    with progress_bar("sampling", calls) as show:
        drawn = model.sample(
            seeds=drawn_seeds,
            labels=labels,
            sampling=wanted,
            guidance=guided,
            size=shape,
            batch_size=batch_size,
            progress=lambda done, _: show(done, f"{len(drawn_seeds)} images"),
        )
    pixels = to_uint8(drawn)
    if out:
        in_turn = len(chosen or range(model.config.model.num_classes))
        sheet = sample_sheet(pixels, drawn_seeds, labels, model.config.class_names, in_turn)
        write_png(out, sheet)
        say(f"{len(drawn_seeds)} images in {out}")
    if images:
        write_images(images, pixels, drawn_seeds)
        say(f"{len(drawn_seeds)} files in {images}")
    if npz:
        write_npz(npz, pixels, labels)
        say(f"arr_0 {pixels.shape} in {npz}")
