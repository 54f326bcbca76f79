"""`diffussm evaluate`: from a checkpoint, or images drawn elsewhere, to numbers one can trust."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryFile
from typing import TYPE_CHECKING, Any

import typer

from diffussm.cli.arguments import MOST, numbers
from diffussm.cli.devices import own_device
from diffussm.cli.display import console, progress_bar, say
from diffussm.cli.drawing import chosen_guidance, chosen_sampling
from diffussm.cli.scoring import AUTO, make_evaluator

if TYPE_CHECKING:
    import torch

    from diffussm.evaluation.evaluator import Evaluator
    from diffussm.evaluation.features import Pixels
    from diffussm.evaluation.pictures import DrawnPictures, FilePictures, Pictures
    from diffussm.evaluation.protocol import Result
    from diffussm.evaluation.references import Reference
    from diffussm.training.distributed import World

SAMPLES = 10_000


def evaluate(
    source: Path = typer.Argument(
        help="A run folder or model file; an .npz of samples; or a result (.json), to compare it."
    ),
    reference: str | None = typer.Option(
        None, help="Real images: folder, archive, digits or an .npz as ADM's; else the run's own."
    ),
    samples: int | None = typer.Option(None, help=f"Images to draw; {SAMPLES:,} unless said."),
    seeds: str | None = typer.Option(None, help="Their seeds, as 0-9999; else from 0 on."),
    metrics: str | None = typer.Option(None, help="Some of fd,sfd,is,pr,kid; else all there are."),
    features: str = typer.Option(
        AUTO, help="What sees the images: inception, digits or FILE.onnx; auto suits the reference."
    ),
    weights: Path | None = typer.Option(None, help="Inception's weights; else the usual places."),
    download: bool = typer.Option(False, "--download", help="Fetch them if they are missing."),
    adm: bool = typer.Option(
        False, "--adm", help="As ADM's evaluator: its distances and its logits without bias."
    ),
    sampler: str | None = typer.Option(None, help="ddpm, ddim or dpm++; else the model's usual."),
    steps: int | None = typer.Option(None, help="Calls of the network; else the sampler's usual."),
    eta: float | None = typer.Option(None, help="Fresh noise of ddim, 0 to 1."),
    guidance: float | None = typer.Option(None, help="Scale of guidance; 1 for none."),
    interval: str | None = typer.Option(
        None, help="Guide only between these shares of the process, as 0.1,0.8."
    ),
    guidance_channels: int | None = typer.Option(None, help="Guide only the first channels."),
    autoencoder: str | None = typer.Option(
        None, help="Folder or Hub name of what decodes latents; else the one the model names."
    ),
    out: Path | None = typer.Option(None, help="File for the result, beside standard output."),
    compare: Path | None = typer.Option(
        None, help="A result (.json): print the difference too, if both were measured alike."
    ),
    npz: Path | None = typer.Option(None, help="File to keep the samples in, as ADM's evaluator."),
    batch_size: int = typer.Option(50, help="Images drawn at a time, at most 50."),
    device: str = typer.Option("auto", help="auto, cpu, cuda, cuda:1, mps."),
) -> None:
    """Score samples: diffussm evaluate runs/digits --samples 2000

    Prints one JSON object: the metrics, and the whole protocol that they stand on. Under torchrun,
    processes share the work, and the result is that of one.
    """
    from diffussm.evaluation.inception_weights import find_weights
    from diffussm.evaluation.protocol import read_result
    from diffussm.training import joined

    drawing = {"--samples": samples, "--seeds": seeds, "--sampler": sampler, "--steps": steps}
    drawing |= {"--eta": eta, "--guidance": guidance, "--interval": interval}
    drawing |= {"--guidance-channels": guidance_channels, "--autoencoder": autoencoder}
    wanted = None if metrics is None else metrics.split(",")
    with joined() as world:
        theirs = world.agree(lambda: read_result(compare) if compare else None)
        pictures = pixels = None
        if source.suffix == ".json":
            result = world.agree(lambda: read_result(source))
        else:
            chosen = world.agree(lambda: own_device(device, world))

            def sides() -> "tuple[DrawnPictures | FilePictures, Reference | None]":
                for file in (out, npz):
                    _check_file(file)
                if source.suffix == ".npz":
                    pictures = _stored(source, drawing | {"--npz": npz})
                else:
                    pictures = _drawn(source, chosen, batch_size, drawing)
                return pictures, _reference(source, reference, pictures.shape, wanted)

            pictures, real = world.agree(sides)
            if download:  # once for all ranks
                world.agree(lambda: find_weights(weights, download=True) if world.leads else None)
            judge = world.agree(
                lambda: make_evaluator(
                    features, real, wanted, chosen, world, adm=adm, weights=weights
                )
            )
            world.agree(lambda: judge.check_count(pictures.count))
            result, pixels = _measured(
                source, pictures, judge, theirs, compare, npz is not None, world, chosen
            )
        if world.leads:
            _report(result, theirs, compare)  # first: it is there, whatever cannot be written
            _keep(result, source, pictures, out, npz, pixels)


def _measured(
    source: Path,
    pictures: "DrawnPictures | FilePictures",
    judge: "Evaluator",
    theirs: "Result | None",
    compare: Path | None,
    keep: bool,
    world: "World",
    device: "torch.device",
) -> "tuple[Result, Pixels | None]":
    """See the reference, make sure that it can be compared, and only then draw and score.

    With `keep` the samples come, too, on rank 0.
    """
    import torch

    from diffussm.evaluation.pictures import DrawnPictures, model_identity
    from diffussm.evaluation.protocol import Result, check_comparable

    if judge.reference:
        with _bar("reference", judge.reference.pictures, world) as progress:
            judge.prepare(progress)
    drawn = isinstance(pictures, DrawnPictures)
    identity = model_identity(source) if drawn else None
    protocol = {"model": identity} | pictures.protocol() | judge.protocol()
    protocol |= {"device": str(device), "torch": str(torch.__version__)}
    if theirs and compare:
        world.agree(lambda: check_comparable(protocol, theirs.protocol, compare))
    with _bar("samples", pictures, world) as progress:
        metrics, warnings, pixels = judge.score(pictures, progress, keep=keep)
    return Result(metrics=metrics, protocol=protocol, warnings=warnings), pixels


def _report(result: "Result", theirs: "Result | None", compare: Path | None) -> None:
    """Print the result, with the difference to another one if that was asked for."""
    from diffussm.evaluation.protocol import metric_differences

    shown = result.as_dict()
    if theirs and compare:
        difference = metric_differences(result, theirs, compare)
        shown |= {"compared": {"with": str(compare), "difference": difference}}
    say(json.dumps(shown, indent=2))


def _keep(
    result: "Result",
    source: Path,
    pictures: "DrawnPictures | FilePictures | None",
    out: Path | None,
    npz: Path | None,
    pixels: "Pixels | None",
) -> None:
    """Write the result where it was asked for and into the run's folder, and the samples."""
    from diffussm.evaluation.pictures import DrawnPictures
    from diffussm.evaluation.protocol import store, write_result
    from diffussm.generation import write_npz

    if out:
        write_result(out, result)
    if not isinstance(pictures, DrawnPictures):
        return
    if npz and pixels is not None:
        labels = pictures.generator.labels(pictures.count)
        write_npz(npz, pixels.permute(0, 2, 3, 1).numpy(), labels)
        console.print(f"samples in {npz}")
    if source.is_dir():
        console.print(f"kept as {store(source, result)}")


def _drawn(
    source: Path, device: "torch.device", batch_size: int, said: dict[str, Any]
) -> "DrawnPictures":
    """What the checkpoint draws."""
    from diffussm.evaluation.pictures import DrawnPictures
    from diffussm.generation import load

    count, text = said["--samples"], said["--seeds"]
    if text is not None and count is not None:
        raise ValueError("--seeds says how many images there are; leave out --samples")
    if count is not None and not 1 <= count <= MOST:
        raise ValueError(f"--samples must lie in 1 to {MOST:,}, not {count}")
    drawn = range(count or SAMPLES) if text is None else numbers("--seeds", text)
    model = load(source, device, said["--autoencoder"])
    pictures = DrawnPictures(
        generator=model,
        seeds=drawn,
        sampling=chosen_sampling(
            model.config.sampling, said["--sampler"], said["--steps"], said["--eta"]
        ),
        guidance=chosen_guidance(
            model.config.guidance,
            said["--guidance"],
            said["--interval"],
            said["--guidance-channels"],
        ),
        batch_size=batch_size,
    )
    # a first step: a mistake should not wait until the reference has been seen
    outermost = [min(drawn), max(drawn)]
    labels = model.labels(len(outermost))
    next(model.steps(outermost, labels, pictures.sampling, pictures.guidance))
    return pictures


def _stored(source: Path, said: dict[str, Any]) -> "FilePictures":
    """The images of a file, for which nothing can be said about how they are drawn."""
    from diffussm.evaluation.adm_reference import AdmFile
    from diffussm.evaluation.pictures import FilePictures

    for option, value in said.items():
        if value is not None:
            raise ValueError(f"the images in {source} are drawn already: leave out {option}")
    file = AdmFile(source)
    if not file.count:
        raise ValueError(f"{source} holds no images (arr_0) to evaluate; give a file that does")
    return FilePictures(file)


def _reference(
    source: Path, name: str | None, shape: tuple[int, int, int], metrics: list[str] | None
) -> "Reference | None":
    """The reference that was named, or the images that the run was trained on."""
    from diffussm.checkpoint import model_file
    from diffussm.config import from_dict
    from diffussm.data import DataConfig
    from diffussm.evaluation.references import data_reference, open_reference
    from diffussm.training import read_tables
    from diffussm.training.folder import RECIPE_FILE

    if name is not None:
        return open_reference(name, shape)
    if metrics == ["is"]:
        return None  # an Inception score needs none
    if source.suffix == ".npz":
        raise ValueError(f"say what to compare the images in {source} with: --reference DATA")
    recipe = model_file(source).with_name(RECIPE_FILE)
    if not recipe.is_file():
        raise ValueError(
            f"there is no {recipe}, so the images of its training are not known; "
            "say what to compare with: --reference DATA"
        )
    return data_reference(from_dict(DataConfig, read_tables(recipe).get("data", {})), shape)


def _check_file(file: Path | None) -> None:
    """Make room for a file now: a mistake should not wait for hours of drawing."""
    from diffussm.checkpoint import make_folder

    if file and (not file.name or file.is_dir()):
        raise ValueError(f"{file} is a folder; --out and --npz need the name of a file")
    if file:
        make_folder(file.parent)
        try:
            with TemporaryFile(dir=file.parent):
                pass
        except OSError as error:
            raise ValueError(f"{file} cannot be written ({error.strerror}); name another") from None


@contextmanager
def _bar(what: str, pictures: "Pictures", world: "World") -> Iterator[Callable[[int], None]]:
    """Progress through this rank's share of the images, shown by rank 0."""
    from diffussm.evaluation.features import numbers_of

    work = pictures.work(numbers_of(world.rank, world.size, pictures.count))
    with progress_bar(what, work) as show:

        def progress(done: int) -> None:
            if world.leads:
                show(done, f"{pictures.count:,} images")

        yield progress
