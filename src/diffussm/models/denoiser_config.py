"""What the configs of all denoisers say: the images, the classes, the answer."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class DenoiserConfig:
    """Images and classes of a denoiser; each family adds what makes its network.

    Raises ValueError, as its subclasses do, for a value out of range.
    """

    input_size: int | tuple[int, int] = 32
    """Height and width of the (latent) image it is trained on; other sizes work at run time."""
    in_channels: int = 4
    """Channels of the image or latent."""
    num_classes: int = 1000
    """Classes it is told apart by; 0 makes an unconditional model."""
    label_std: float = 0.02
    """Standard deviation of the label embeddings at birth; DiT's 0.02 for long runs, 1 where the
    classes must be learned within thousands of steps."""
    learned_variance: bool = True
    """Predict the variance's interpolation beside the noise: twice the output channels."""

    def __post_init__(self):
        self.check_positive("in_channels")
        if self.num_classes < 0:
            raise ValueError(f"num_classes must be 0 (none) or more, not {self.num_classes}")
        if self.label_std < 0:
            raise ValueError(f"label_std must be 0 or more, not {self.label_std}")

    @property
    def size(self) -> tuple[int, int]:
        """Height and width the model is trained on."""
        size = self.input_size
        return (size, size) if isinstance(size, int) else size

    @property
    def out_channels(self) -> int:
        """Channels of the prediction."""
        return self.in_channels * (2 if self.learned_variance else 1)

    def check_positive(self, *names: str) -> None:
        """A ValueError for a field that is not at least 1."""
        for name in names:
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, not {getattr(self, name)}")


def patches(height: int, width: int, patch_size: int) -> tuple[int, int]:
    """Rows and columns of square patches; a ValueError where they do not divide the image."""
    for name, side in (("height", height), ("width", width)):
        if side < 1 or side % patch_size:
            raise ValueError(
                f"{name} {side} must be a positive multiple of patch_size {patch_size}"
            )
    return height // patch_size, width // patch_size
