"""The tables [training] and [evaluation] of a recipe: how a model is trained, and how scored."""

from dataclasses import dataclass

from diffussm.config import choose
from diffussm.diffusion.losses import WEIGHTINGS
from diffussm.training.optimizer import LR_SCHEDULES
from diffussm.training.parallel import PARALLELS

PRECISIONS = ("auto", "float32", "bfloat16")


@dataclass(frozen=True, kw_only=True)
class TrainingConfig:
    """How long and how a model is trained; amounts of training are counted in images."""

    images: int
    """Images in all, each epoch's counted again."""
    batch_size: int = 256
    """Images a step, over all ranks; at least one for each."""
    lr: float = 1e-4
    """Learning rate of AdamW (betas .9 and .999) at its highest."""
    lr_schedule: str = "constant"
    """constant or cosine (to zero at the end)."""
    warmup_images: int = 0
    """Images over which the learning rate rises linearly from zero."""
    weight_decay: float = 0.0
    """AdamW's, for parameters without a tag of their own."""
    gradient_clip: float = 1.0
    """Largest norm of the gradient."""
    ema_decay: float = 0.9999
    """Share of the averaged weights that each step keeps, in [0, 1); less in the first steps."""
    label_dropout: float = 0.1
    """Share of images shown without their label, in [0, 1]; guidance needs some."""
    weighting: str = "none"
    """Weight of each noise level: none or min-snr."""
    precision: str = "auto"
    """auto (bfloat16 on devices built for it), float32 or bfloat16."""
    seed: int = 0
    """Of initial weights, order of images, noise and label dropout; at least 0."""
    accumulate: int = 1
    """Parts in which a rank goes through its share of a batch, at least 1: memory for time."""
    parallel: str = "ddp"
    """How several ranks share the work: ddp, or fsdp where one device cannot hold everything."""
    checkpoint_blocks: bool = False
    """Compute each block again for its gradient rather than remember it: memory for time."""
    compile: bool = False
    """Let PyTorch compile the blocks, minutes at the start, for faster steps."""
    save_every: int = 100_000
    """Images between two checkpoints."""
    preview_every: int = 100_000
    """Images between two grids of samples; 0 for none."""
    validate_every: int = 100_000
    """Images between two losses on the images that data.hold_out keeps; 0 for none."""
    evaluate_every: int = 0
    """Images between two evaluations of the averaged weights, see [evaluation]; 0 for none."""
    log_every: int = 1
    """Images between two lines of metrics.jsonl, each an average; 1 gives a line a step."""

    def __post_init__(self):
        choose("lr_schedule", self.lr_schedule, LR_SCHEDULES)
        choose("weighting", self.weighting, WEIGHTINGS)
        choose("precision", self.precision, {name: name for name in PRECISIONS})
        choose("training.parallel", self.parallel, PARALLELS)
        for name in ("images", "batch_size", "accumulate", "save_every", "log_every"):
            _at_least(name, getattr(self, name), 1)
        for name in ("warmup_images", "weight_decay", "seed"):
            _at_least(name, getattr(self, name), 0)
        for name in ("preview_every", "validate_every", "evaluate_every"):
            _at_least(name, getattr(self, name), 0)
        for name in ("lr", "gradient_clip"):
            if not getattr(self, name) > 0:
                raise ValueError(f"training.{name} must be above 0, not {getattr(self, name)}")
        if not 0 <= self.ema_decay < 1:
            raise ValueError(f"training.ema_decay must lie in [0, 1), not {self.ema_decay}")
        if not 0 <= self.label_dropout <= 1:
            raise ValueError(f"training.label_dropout must lie in [0, 1], not {self.label_dropout}")


@dataclass(frozen=True, kw_only=True)
class EvaluationConfig:
    """What is measured every training.evaluate_every images; [sampling] says how it draws."""

    samples: int = 1000
    """Images drawn each time, from the seeds 0, 1, ..."""
    features: str = "auto"
    """What sees them, as in `diffussm evaluate --features`: digits, inception, an .onnx file; auto
    takes digits for digits and inception otherwise."""
    metrics: tuple[str, ...] = ("fd",)
    """Which of fd, sfd, is, pr, kid."""
    reference: str = ""
    """What samples are compared with: a folder or archive of images, an .npz file as ADM's; the
    images of training, unless given."""

    def __post_init__(self):
        if self.samples < 2:
            raise ValueError(f"evaluation.samples must be at least 2, not {self.samples}")
        if not self.metrics:
            raise ValueError('evaluation.metrics names none; give some, for instance ["fd"]')


def crosses(interval: int, before: int, after: int) -> bool:
    """Whether something due every `interval` images (0: never) is due between two counts."""
    return interval > 0 and before // interval < after // interval


def _at_least(name: str, value: int | float, least: int) -> None:
    if value < least:
        raise ValueError(f"training.{name} must be at least {least}, not {value}")
