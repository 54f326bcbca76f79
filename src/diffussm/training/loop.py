"""The training loop: a generator of `Step` records, whose every draw follows from the images seen.

After k images the next batch, its noise, time steps and dropped labels are a pure function of
(seed, k). A trainer restored from `tensors()` and `counts` therefore goes on exactly as if it had
never stopped, and however many ranks share the work, they do the same up to rounding.
"""

import math
import time
from collections.abc import Iterator
from contextlib import closing

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from diffussm.data import CorruptCount, Dataset, seeded
from diffussm.diffusion import GaussianDiffusion, diffusion_loss
from diffussm.models import build
from diffussm.training.batches import WEIGHTS, Piece, Shown, batches
from diffussm.training.distributed import ALONE, World
from diffussm.training.ema import EMA
from diffussm.training.optimizer import MOMENTS, lr_scale, make_optimizer, set_lr
from diffussm.training.parallel import (
    PARALLELS,
    is_sliced,
    rework_blocks,
    whole,
    without_averaging,
)
from diffussm.training.recipe import Recipe
from diffussm.training.settings import crosses
from diffussm.training.state import AVERAGE
from diffussm.training.step import QUARTERS, Step, peak_memory, quarter_means, tally

MAX_SKIPPED = 3


class Diverged(ArithmeticError):
    """Training stopped because the loss was not finite several times in a row."""


class Trainer:
    """A model, its average, its optimiser and how many images they have seen.

    On several ranks each has a Trainer of its own, and they step together. Raises ValueError where
    a batch has no image for one of them.
    """

    def __init__(self, recipe: Recipe, data: Dataset, device: torch.device, world: World = ALONE):
        settings = recipe.training
        if settings.batch_size < world.size:
            raise ValueError(
                f"training.batch_size is {settings.batch_size}, which leaves some of {world.size} "
                "ranks without an image; start fewer, or take larger batches"
            )
        self.recipe, self.data, self.device, self.world = recipe, data, device, world
        self.diffusion = GaussianDiffusion(recipe.diffusion)
        self.corrupt = CorruptCount(len(data), recipe.data.max_corrupt)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seeded(settings.seed, WEIGHTS).initial_seed())
            self.model = build(recipe.model).to(device)
        self.ema = EMA(self.model, settings.ema_decay)
        rework_blocks(
            self.model, checkpointed=settings.checkpoint_blocks, compiled=settings.compile
        )
        self._network = self.model
        """The model as it is called: DDP's, where there are several ranks."""
        if world.size > 1:
            lay = PARALLELS[settings.parallel]
            self._network = lay(self.model, self.ema.model, device, world, self.in_bfloat16)
        self.optimizer = make_optimizer(self.model, settings.lr, settings.weight_decay)
        self.images = 0
        self.updates = 0
        self.skipped_in_a_row = 0
        self.stop_asked = False
        """Set on any rank, it ends `steps` on all of them after a step that they agree on."""

    def steps(self) -> Iterator[Step]:
        """Train until the recipe's number of images; stop early by closing the generator.

        Raises Diverged after MAX_SKIPPED losses in a row that are not finite, and what the data
        raise.
        """
        shown = batches(self.recipe, self.data, self.world, self.device, self.corrupt, self.images)
        settled = not isinstance(self._network, DistributedDataParallel)
        with closing(shown):  # pyright: ignore[reportArgumentType]
            while self.images < self.recipe.training.images:
                started = time.perf_counter()
                batch = next(shown)
                if not settled:
                    # DDP orders its sums anew after its first gradients. Here these are thrown
                    # away, so that a run that goes on adds in the order of one that never stopped.
                    self._gradients(batch.pieces)
                    settled = True
                step, stop = self._step(batch, started)
                yield step
                if self.skipped_in_a_row >= MAX_SKIPPED:
                    raise Diverged(
                        f"the loss was not finite {MAX_SKIPPED} times in a row, "
                        f"last at {self.images} images; lower training.lr or use float32"
                    )
                if stop:
                    return

    def tensors(self) -> dict[str, Tensor]:
        """All that training changes, by name; to write into them is to restore it."""
        found = {f"model.{name}": value for name, value in self.model.state_dict().items()}
        found |= {f"{AVERAGE}{name}": value for name, value in self.ema.model.state_dict().items()}
        for name, parameter in self.model.named_parameters():
            for moment in MOMENTS:
                found[f"{moment}.{name}"] = self.optimizer.state[parameter][moment]
        return found

    @property
    def counts(self) -> dict[str, int]:
        """The numbers that belong to `tensors`."""
        names = ("images", "updates", "skipped_in_a_row")
        return {name: getattr(self, name) for name in names}

    @counts.setter
    def counts(self, counts: dict[str, int]) -> None:
        self.images, self.updates = counts["images"], counts["updates"]
        self.skipped_in_a_row = counts["skipped_in_a_row"]
        for state in self.optimizer.state.values():
            state["step"].fill_(self.updates)

    @property
    def in_bfloat16(self) -> bool:
        """Whether the network runs in bfloat16, as the recipe and the device decide."""
        precision = self.recipe.training.precision
        if precision == "auto":
            return self.device.type == "cuda" and torch.cuda.is_bf16_supported()
        return precision == "bfloat16"

    def _step(self, batch: Shown, started: float) -> tuple[Step, bool]:
        """One step of the optimiser, and whether some rank was asked to stop."""
        settings, before = self.recipe.training, self.images
        scale = lr_scale(settings.lr_schedule, before, settings.images, settings.warmup_images)
        set_lr(self.optimizer, scale)
        sums = self._gradients(batch.pieces)
        loss, simple, bound, waited, stop, *quarters = sums.tolist()
        norm = nn.utils.clip_grad_norm_(self.model.parameters(), settings.gradient_clip)
        grad_norm = whole(norm).item()
        finite = math.isfinite(loss) and math.isfinite(grad_norm)
        if finite:
            self.optimizer.step()
            self.ema.update(self.model, self.updates)
            self.updates += 1
        self.skipped_in_a_row = 0 if finite else self.skipped_in_a_row + 1
        self.images += batch.size
        seconds = time.perf_counter() - started
        step = Step(
            images=self.images,
            loss=loss,
            simple=simple,
            bound=bound,
            quarters=quarter_means(quarters[:QUARTERS], quarters[QUARTERS:]),
            grad_norm=grad_norm,
            lr=scale * settings.lr,
            ema_distance=self._ema_distance(before),
            seconds=seconds,
            waited=waited / self.world.size,
            speed=batch.size / seconds,
            memory=peak_memory(self.device),
            skipped=not finite,
        )
        return step, stop > 0

    def _gradients(self, pieces: list[Piece]) -> Tensor:
        """Leave in the parameters the gradient of the batch's mean loss; its numbers, summed.

        They are loss, simple, bound, seconds waited, ranks that were asked to stop, and the
        quarters' sums and counts.
        """
        self.optimizer.zero_grad(set_to_none=True)
        sums = torch.zeros(3 + 2 * QUARTERS, device=self.device)
        steps = self.recipe.diffusion.steps
        for number, piece in enumerate(pieces, start=1):
            with without_averaging(self._network, more_to_come=number < len(pieces)):
                with torch.autocast(self.device.type, torch.bfloat16, enabled=self.in_bfloat16):
                    losses = diffusion_loss(
                        self._network,
                        self.diffusion,
                        piece.x_0,
                        piece.t,
                        piece.y,
                        piece.noise,
                        weighting=self.recipe.training.weighting,
                    )
                # ranks' gradients are averaged, the pieces' shares are of the whole batch
                (losses.total.mean() * (piece.share * self.world.size)).backward()
            sums += tally(losses, piece.t, steps, piece.share)
        waited = sum(piece.waited for piece in pieces)
        others = torch.tensor([waited, float(self.stop_asked)], device=self.device)
        return self.world.sum(torch.cat([sums[:3], others, sums[3:]]))

    def _ema_distance(self, before: int) -> float | None:
        """|average - weights| / |weights|, where a line of metrics is due."""
        settings = self.recipe.training
        if self.images < settings.images and not crosses(settings.log_every, before, self.images):
            return None
        squares = self.ema.distances(self.model)
        if is_sliced(next(self.model.parameters())):
            self.world.sum(squares)
        apart, size = squares.sqrt().tolist()
        return apart / size
