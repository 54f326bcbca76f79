"""What a run writes about itself: one JSON object a step, and TensorBoard's files if wished.

Steps after the last checkpoint are trained again when a run resumes, so their lines are dropped.
"""

import json
from dataclasses import asdict
from pathlib import Path

from diffussm.checkpoint import write_safely
from diffussm.training.loop import Step

METRICS_FILE = "metrics.jsonl"


class Metrics:
    """The open records of one run, going on after `images`.

    Raises ValueError where TensorBoard is asked for and not installed.
    """

    def __init__(self, folder: Path, images: int, tensorboard: bool = False):
        self.path = folder / METRICS_FILE
        _drop_after(self.path, images)
        self._board = _board(folder, images) if tensorboard else None
        self._file = open(self.path, "a")  # noqa: SIM115 (open as long as the run is)

    def write(self, step: Step) -> None:
        """Add one step."""
        self._file.write(json.dumps(asdict(step)) + "\n")
        if self._board:
            for name in ("loss", "simple", "bound", "grad_norm", "lr"):
                self._board.add_scalar(name, getattr(step, name), step.images)

    def flush(self) -> None:
        """Hand everything written so far to the operating system."""
        self._file.flush()
        if self._board:
            self._board.flush()

    def close(self) -> None:
        """Write what is left and close the files."""
        self._file.close()
        if self._board:
            self._board.close()


def _drop_after(path: Path, images: int) -> None:
    """Keep the lines of steps up to `images`; a kill may have cut the last one short."""
    if not path.exists():
        return
    kept = []
    for line in path.read_text().splitlines():
        try:
            seen = json.loads(line)["images"]
        except (json.JSONDecodeError, KeyError, TypeError):
            break
        if seen > images:
            break
        kept.append(line + "\n")
    write_safely(path, lambda temporary: temporary.write_text("".join(kept)))


def _board(folder: Path, images: int):
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        raise ValueError(
            "TensorBoard is not installed; pip install 'diffussm[tensorboard]', or leave it off"
        ) from None
    return SummaryWriter(str(folder / "tensorboard"), purge_step=images + 1)
