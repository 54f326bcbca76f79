"""`diffussm encode`: from images to a folder of latents."""

from pathlib import Path
from typing import TYPE_CHECKING

import typer

from diffussm.cli.devices import own_device
from diffussm.cli.display import progress_bar, say

if TYPE_CHECKING:
    from diffussm.data import Dataset
    from diffussm.data.latent_index import LatentIndex

NAMED = 5
"""How many images that cannot be read are named on the screen."""


def encode(
    data: str | None = typer.Argument(
        None, help="Folder or archive of images, or digits. Not needed with --verify."
    ),
    out: Path = typer.Option(help="Folder of the latents; the same command makes what is missing."),
    autoencoder: str | None = typer.Option(
        None, help="Folder or Hub name of an AutoencoderKL; identity for pixels."
    ),
    size: int = typer.Option(256, help="Height and width that images are scaled and cropped to."),
    labels: str = typer.Option("folders", help="folders, none, a CSV file, or a column's name."),
    scale: float | None = typer.Option(
        None, help="What latents are multiplied by in training; else the autoencoder's own."
    ),
    precision: str = typer.Option("float16", help="Of what is stored: float16 or float32."),
    shard_images: int = typer.Option(4096, help="Images in a file."),
    batch_size: int = typer.Option(16, help="Images at a time."),
    workers: int = typer.Option(0, help="Processes that read images ahead."),
    device: str = typer.Option("auto", help="auto, cpu, cuda, cuda:1, mps."),
    verify: bool = typer.Option(False, "--verify", help="Only check every byte of --out."),
) -> None:
    """Encode images once: diffussm encode photos --autoencoder vae --out latents

    Both the images and their mirror images. Under torchrun, processes share the work.
    """
    if verify:
        _verify(out)
        return
    if data is None or autoencoder is None:
        raise ValueError("say what to encode, and with what: DATA and --autoencoder DIR")
    if not str(out).strip("."):
        raise ValueError("--out needs the name of a folder, for instance latents/photos")
    from diffussm.autoencoder import find_autoencoder
    from diffussm.encoding import Encoder, latents_config
    from diffussm.training.distributed import named_world

    world = named_world()
    name = str(Path(autoencoder).resolve()) if Path(autoencoder).is_dir() else autoencoder
    coder = find_autoencoder(name, scale, own_device(device, world))
    images, source = _images(data, size, labels, workers, coder.colours or 3)
    config = latents_config(
        images, coder, source=source, shard_images=shard_images, precision=precision
    )
    encoder = Encoder(config, out, world.rank, world.size)
    share = f" (rank {world.rank} of {world.size})" if world.size > 1 else ""
    say(f"{encoder.images:,} images in {len(encoder.shards):,} shards of latents in {out}{share}")
    with progress_bar("encoding", encoder.images) as show:
        watch = show if world.leads else lambda done, what: None
        try:
            index = encoder.run(
                images, coder, batch_size=batch_size, workers=workers, progress=watch
            )
        except KeyboardInterrupt:
            say("stopped; finished shards are kept, and the same command makes the others")
            raise typer.Exit(130) from None
    if index is None:
        say(f"done here{share}: {out} is complete when the other processes are done, too")
    else:
        _report(index, out)


def _images(data: str, size: int, labels: str, workers: int, colours: int) -> "tuple[Dataset, str]":
    """The images, and a fingerprint of which they are."""
    from diffussm.data import DataConfig, load_data
    from diffussm.data.images import StoredImages

    name = data if data == "digits" else "images"
    config = DataConfig(
        name=name,
        path=data,
        size=size,
        labels=labels,
        workers=workers,
        channels=colours,
        flip=False,
    )
    images = load_data(config)
    return images, images.index.fingerprint if isinstance(images, StoredImages) else name


def _report(index: "LatentIndex", out: Path) -> None:
    left_out = index.corrupt
    if left_out:
        more = f", and {len(left_out) - NAMED:,} more" if len(left_out) > NAMED else ""
        names = ", ".join(left_out[:NAMED])
        say(f"left out, because they cannot be read: {len(left_out):,} ({names}{more})")
    say(
        f"done: {index.images:,} images in {out}; try: diffussm train RECIPE --out RUN "
        f"--set data.name=latents --set data.path={out}"
    )


def _verify(out: Path) -> None:
    """Name what is damaged and leave with exit code 1, or say that all is whole."""
    from diffussm.data.latent_index import fault, read_index

    try:
        index = read_index(out)
    except ValueError as error:
        typer.echo(f"diffussm: {error}", err=True)
        raise typer.Exit(1) from None
    faults = []
    with progress_bar("checking", len(index.shards)) as show:
        for number, entry in enumerate(index.shards, start=1):
            faults.append(fault(out, entry))
            show(number, entry.file)
    for sentence in filter(None, faults):
        typer.echo(f"diffussm: {sentence}", err=True)
    if any(faults):
        raise typer.Exit(1)
    say(f"all {len(index.shards):,} shards in {out} are whole: {index.images:,} images")
