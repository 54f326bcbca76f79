"""Programs that show a run's metrics while it goes on, by name; imported only when asked for."""

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from diffussm.config import choose

Values = dict[str, Any]
"""A line of metrics: `Step`'s fields."""


class Watcher(ABC):
    """Told each line of metrics."""

    @abstractmethod
    def write(self, values: Values) -> None:
        """Show one line."""

    @abstractmethod
    def flush(self) -> None:
        """Let nothing wait in memory."""

    @abstractmethod
    def close(self) -> None:
        """The run ends here, for now."""


class TensorBoard(Watcher):
    """Files for TensorBoard in the run's folder; what is newer than `images` is taken back."""

    def __init__(self, folder: Path, images: int, recipe: dict[str, Any]):
        from torch.utils.tensorboard import SummaryWriter

        self._board = SummaryWriter(str(folder / "tensorboard"), purge_step=images + 1)

    def write(self, values: Values) -> None:
        for name, value in scalars(values):
            self._board.add_scalar(name, value, values["images"])

    def flush(self) -> None:
        self._board.flush()

    def close(self) -> None:
        self._board.close()


class WandB(Watcher):
    """A run at Weights & Biases that goes on where the folder's run goes on."""

    def __init__(self, folder: Path, images: int, recipe: dict[str, Any]):
        import wandb  # pyright: ignore[reportMissingImports]

        name = str(folder.resolve())
        self._run = wandb.init(
            project="diffussm",
            name=folder.resolve().name,
            id=hashlib.sha256(name.encode()).hexdigest()[:16],
            resume="allow",
            dir=name,
            config=recipe,
        )

    def write(self, values: Values) -> None:
        self._run.log(dict(scalars(values)) | {"images": values["images"]})

    def flush(self) -> None:
        """It sends by itself."""

    def close(self) -> None:
        self._run.finish()


WATCHERS: dict[str, Callable[[Path, int, dict[str, Any]], Watcher]] = {
    "tensorboard": TensorBoard,
    "wandb": WandB,
}


def open_watcher(name: str, folder: Path, images: int, recipe: dict[str, Any]) -> Watcher:
    """The watcher `name` of a run in `folder` after `images`; ValueError where there is none."""
    make = choose("watcher", name, WATCHERS)
    try:
        return make(folder, images, recipe)
    except ImportError:
        raise ValueError(f"{name} is not installed; pip install {name}, or leave it off") from None


def scalars(values: Values) -> Iterator[tuple[str, float]]:
    """The numbers of a line by name, a quarter's and an evaluation's each on its own."""
    for name, value in values.items():
        if name == "quarters":
            for quarter, loss in enumerate(value, start=1):
                if loss is not None:
                    yield f"quarter_{quarter}", loss
        elif name == "evaluation":
            yield from value.items()
        elif name != "images":
            yield name, float(value)
