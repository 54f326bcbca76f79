"""`diffussm convert`: other people's files to ours, and ours to theirs."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import typer

from diffussm.cli.arguments import pair
from diffussm.cli.display import say
from diffussm.config import choose


def convert(
    source: Path = typer.Argument(
        help="To read: a published DiT (.pt) or a diffusers folder. To write: a model of ours."
    ),
    out: Path = typer.Option(help="Folder or file to write."),
    to: str | None = typer.Option(
        None, help="What to make of a model of ours: diffusers, dit, torch-export or onnx."
    ),
    size: str | None = typer.Option(
        None, help="Height x width that the network sees, as 32x64; else as trained, or a square."
    ),
    heads: int | None = typer.Option(
        None, help="Attention heads of a .pt whose width is none of the published ones."
    ),
    batch: int = typer.Option(1, help="Images at a time that an export takes; 0 for any number."),
    autoencoder: str | None = typer.Option(
        None, help="Folder or Hub name of what decodes latents, for diffusers; else as named."
    ),
    push: str | None = typer.Option(
        None, help="Upload the diffusers folder to the Hub too, as OWNER/NAME."
    ),
) -> None:
    """Read or write other formats: diffussm convert runs/digits --to diffusers --out digits-hub

    A published checkpoint becomes a run folder: diffussm convert DiT-XL-2-256x256.pt --out runs/dit
    """
    if push and to != "diffusers":
        raise ValueError("--push uploads what --to diffusers writes; say both")
    if batch < 0:
        raise ValueError(f"--batch must be 0 (any number) or more, not {batch}")
    options = Options(
        size=None if size is None else pair("--size", size, "x", int),
        heads=heads,
        batch=batch or None,
        autoencoder=autoencoder,
        name=push,
    )
    if to is not None:
        choose("target", to, TARGETS)(source, out, options)
        say(f"{source} as {to} in {out}")
    else:
        _read(source, out, options)
        say(f"{out} holds the model; try: diffussm sample {out} --out grid.png")
    if push:
        from diffussm.interop.hub import push as upload

        say(f"uploaded to {upload(out, push)}")


@dataclass(frozen=True, kw_only=True)
class Options:
    """What the command line says; each format takes what concerns it."""

    size: tuple[int, int] | None
    heads: int | None
    batch: int | None
    """None for any number."""
    autoencoder: str | None
    name: str | None
    """On the Hub."""


def _read(source: Path, out: Path, options: Options) -> None:
    from diffussm.checkpoint import MODEL_FILE, make_folder, save_model
    from diffussm.interop.dit_checkpoint import convert_dit

    if (out / MODEL_FILE).exists():
        raise ValueError(f"{out} holds a model already; give another folder")
    if source.suffix == ".safetensors" or (source / MODEL_FILE).exists():
        raise ValueError(f"{source} is a model of ours: say what to make of it with --to")
    if source.is_dir():
        from diffussm.interop.diffusers_folder import import_folder

        network, header = import_folder(source)
        make_folder(out)
        save_model(out / MODEL_FILE, network, header)
    else:
        convert_dit(source, out, num_heads=options.heads, input_size=options.size)


def _diffusers(source: Path, out: Path, options: Options) -> None:
    from diffussm.interop.diffusers_folder import export_folder

    export_folder(source, out, name=options.name, autoencoder=options.autoencoder)


def _dit(source: Path, out: Path, options: Options) -> None:
    from diffussm.checkpoint import load_model
    from diffussm.interop.dit_checkpoint import write_dit
    from diffussm.models.dit import DiT

    network, _ = load_model(source)
    if not isinstance(network, DiT):
        raise ValueError(f"{source} is a {type(network).__name__}; --to dit writes DiTs")
    write_dit(network, out)


def _torch_export(source: Path, out: Path, options: Options) -> None:
    from diffussm.checkpoint import load_model
    from diffussm.interop.export import export_program

    export_program(load_model(source)[0], out, size=options.size, batch=options.batch)


def _onnx(source: Path, out: Path, options: Options) -> None:
    from diffussm.checkpoint import load_model
    from diffussm.interop.export import export_onnx

    export_onnx(load_model(source)[0], out, size=options.size, batch=options.batch)


TARGETS: dict[str, Callable[[Path, Path, Options], None]] = {
    "diffusers": _diffusers,
    "dit": _dit,
    "torch-export": _torch_export,
    "onnx": _onnx,
}
