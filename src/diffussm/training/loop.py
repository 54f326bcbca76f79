"""The training loop: a generator of `Step` records, whose every draw follows from the images seen.

After k images the next batch, its noise, time steps and dropped labels are a pure function of
(seed, k). A trainer restored from `state()` therefore goes on exactly as if it had never stopped.
"""

import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from diffussm.data import ImageDataset, image_order, seeded
from diffussm.diffusion import GaussianDiffusion, diffusion_loss
from diffussm.models import build
from diffussm.training.ema import EMA
from diffussm.training.optimizer import lr_scale, make_optimizer, set_lr
from diffussm.training.recipe import Recipe

MAX_SKIPPED = 3

# Purposes of a random draw, so that no two share their numbers.
WEIGHTS, ORDER, NOISE = range(3)


class Diverged(ArithmeticError):
    """Training stopped because the loss was not finite several times in a row."""


@dataclass(frozen=True, kw_only=True)
class Step:
    """What one optimiser step did."""

    images: int
    """Images seen so far, this step's included."""
    loss: float
    """What was minimised, mean over the batch."""
    simple: float
    """Squared error of the prediction, unweighted."""
    bound: float
    """Variational bound of the learned variance, bits per element."""
    grad_norm: float
    """Before clipping."""
    lr: float
    """Highest learning rate of all groups."""
    seconds: float
    """Duration of the step."""
    skipped: bool
    """The loss or its gradient was not finite, so no weight was changed."""


class Trainer:
    """A model, its average, its optimiser and how many images they have seen."""

    def __init__(self, recipe: Recipe, data: ImageDataset, device: torch.device):
        self.recipe, self.data, self.device = recipe, data, device
        self.diffusion = GaussianDiffusion(recipe.diffusion)
        settings = recipe.training
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seeded(settings.seed, WEIGHTS).initial_seed())
            self.model = build(recipe.model).to(device)
        self.ema = EMA(self.model, settings.ema_decay)
        self.optimizer = make_optimizer(self.model, settings.lr, settings.weight_decay)
        self.images = 0
        self.updates = 0
        self.skipped_in_a_row = 0

    def steps(self) -> Iterator[Step]:
        """Train until the recipe's number of images; stop early by closing the generator.

        Raises Diverged after MAX_SKIPPED losses in a row that are not finite.
        """
        while self.images < self.recipe.training.images:
            step = self._step()
            yield step
            if self.skipped_in_a_row >= MAX_SKIPPED:
                raise Diverged(
                    f"the loss was not finite {MAX_SKIPPED} times in a row, "
                    f"last at {self.images} images; lower training.lr or use float32"
                )

    def state(self) -> dict[str, Any]:
        """Everything needed to go on exactly: tensors, numbers, and nothing pickled."""
        return {
            "model": self.model.state_dict(),
            "ema": self.ema.model.state_dict(),
            "moments": self.optimizer.state_dict()["state"],
            "images": self.images,
            "updates": self.updates,
            "skipped_in_a_row": self.skipped_in_a_row,
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from what `state` returned, with the recipe's own learning rate and decay."""
        self.model.load_state_dict(state["model"])
        self.ema.model.load_state_dict(state["ema"])
        groups = self.optimizer.state_dict()["param_groups"]
        self.optimizer.load_state_dict({"state": state["moments"], "param_groups": groups})
        self.images = state["images"]
        self.updates = state["updates"]
        self.skipped_in_a_row = state["skipped_in_a_row"]

    def _step(self) -> Step:
        started = time.perf_counter()
        settings = self.recipe.training
        x_0, y, t, noise = self._batch(min(settings.batch_size, settings.images - self.images))
        scale = lr_scale(settings.lr_schedule, self.images, settings.images, settings.warmup_images)
        set_lr(self.optimizer, scale)

        with torch.autocast(self.device.type, torch.bfloat16, enabled=self._in_bfloat16):
            losses = diffusion_loss(
                self.model, self.diffusion, x_0, t, y, noise, weighting=settings.weighting
            )
        loss = losses.total.mean()
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        norm = nn.utils.clip_grad_norm_(self.model.parameters(), settings.gradient_clip)
        finite = bool(torch.isfinite(loss) & torch.isfinite(norm))
        if finite:
            self.optimizer.step()
            self.ema.update(self.model, self.updates)
            self.updates += 1
        self.skipped_in_a_row = 0 if finite else self.skipped_in_a_row + 1
        self.images += len(x_0)
        return Step(
            images=self.images,
            loss=loss.item(),
            simple=losses.simple.mean().item(),
            bound=losses.bound.mean().item(),
            grad_norm=norm.item(),
            lr=scale * settings.lr,
            seconds=time.perf_counter() - started,
            skipped=not finite,
        )

    def _batch(self, size: int) -> tuple[Tensor, Tensor | None, Tensor, Tensor]:
        """The next images with labels, time steps and noise, on the device."""
        settings = self.recipe.training
        order_seed = seeded(settings.seed, ORDER).initial_seed()
        index = image_order(len(self.data), order_seed, self.images, size)
        x_0, y = self.data.batch(index)
        draws = [self._draw(self.images + i, x_0.shape[1:]) for i in range(size)]
        t, dropped, noise = (torch.stack(parts) for parts in zip(*draws, strict=True))
        labels = None
        if self.recipe.model.num_classes:
            labels = torch.where(dropped, self.recipe.model.num_classes, y).to(self.device)
        return x_0.to(self.device), labels, t.to(self.device), noise.to(self.device)

    def _draw(self, image: int, shape: torch.Size) -> tuple[Tensor, Tensor, Tensor]:
        """Time step, whether to drop the label, and noise, for the image seen as number `image`."""
        generator = seeded(self.recipe.training.seed, NOISE, image)
        t = torch.randint(len(self.diffusion.schedule), (), generator=generator)
        dropped = torch.rand((), generator=generator) < self.recipe.training.label_dropout
        return t, dropped, torch.randn(shape, generator=generator)

    @property
    def _in_bfloat16(self) -> bool:
        precision = self.recipe.training.precision
        if precision == "auto":
            return self.device.type == "cuda" and torch.cuda.is_bf16_supported()
        return precision == "bfloat16"
