"""DiffuSSM as diffusers knows a model: loaded, saved and called as its transformers are.

The parameters have the names of `diffussm.models.DiffuSSM`: weights go from one to the other as
they are. An exported folder carries this class and all it needs in one file, made by
`diffussm.interop.bundle`.
"""

# pyright: reportPrivateImportUsage=false
from collections.abc import Callable

import torch
from torch import Tensor, nn

from diffussm.models.diffussm import DiffuSSM, DiffuSSMConfig
from diffussm.ssm.kernel_layer import reusing_kernels

try:
    from diffusers import ConfigMixin, ModelMixin
    from diffusers.configuration_utils import FrozenDict, register_to_config
    from diffusers.models.modeling_outputs import Transformer2DModelOutput
except ImportError:
    raise ValueError("this needs diffusers: pip install 'diffussm[latent]'") from None


class Options(FrozenDict):
    """The options as diffusers keeps them, with the one question that a forward pass asks them."""

    def tokens(self, height: int, width: int) -> tuple[int, int]:
        """As `DiffuSSMConfig.tokens`."""
        named = {name: value for name, value in self.items() if not name.startswith("_")}
        return DiffuSSMConfig(**named).tokens(height, width)


class DiffuSSMTransformer2DModel(DiffuSSM, ModelMixin, ConfigMixin):
    """The denoiser: noisy image, time step and class in; noise (and variance) out.

    Options, their defaults and the ValueErrors for wrong ones are those of `DiffuSSMConfig`.
    """

    _repeated_blocks = ["DiffuSSMBlock", "SixVectorBlock", "TokenBlock"]  # noqa: RUF012 (a list)
    _no_split_modules = _repeated_blocks

    @register_to_config
    def __init__(
        self,
        *,
        input_size: int | list[int] | tuple[int, int] = 32,
        in_channels: int = 4,
        num_classes: int = 1000,
        patch_size: int = 1,
        d_model: int = 384,
        depth: int = 13,
        hourglass_ratio: int = 2,
        matrices: str = "totals",
        bidirectional: bool = True,
        scan: str = "raster",
        conditioning: str = "three",
        ssm: str = "s4d",
        d_state: int | None = None,
        ssm_init: str | None = None,
        discretization: str | None = None,
        dt_min: int | float = 1e-3,
        dt_max: int | float = 1e-1,
        label_std: int | float = 0.02,
        learned_variance: bool = True,
    ):
        super().__init__(
            DiffuSSMConfig(
                input_size=_size(input_size),
                in_channels=in_channels,
                num_classes=num_classes,
                patch_size=patch_size,
                d_model=d_model,
                depth=depth,
                hourglass_ratio=hourglass_ratio,
                matrices=matrices,
                bidirectional=bidirectional,
                scan=scan,
                conditioning=conditioning,
                ssm=ssm,
                d_state=d_state,
                ssm_init=ssm_init,
                discretization=discretization,
                dt_min=dt_min,
                dt_max=dt_max,
                label_std=label_std,
                learned_variance=learned_variance,
            )
        )

    @property
    def config(self) -> Options:  # pyright: ignore[reportIncompatibleVariableOverride]
        """The options, a dictionary that is also read by attributes."""
        return Options(self._internal_dict)

    @config.setter
    def config(self, config: DiffuSSMConfig) -> None:
        # what was left to the layer is written down, so that a file says everything
        names = ("input_size", "d_state", "ssm_init", "discretization")
        self.register_to_config(**{name: getattr(config, name) for name in names})

    def forward(  # pyright: ignore[reportIncompatibleMethodOverride]
        self,
        hidden_states: Tensor,
        timestep: Tensor | int | float,
        class_labels: Tensor | list[int] | None = None,
        return_dict: bool = True,
    ) -> Transformer2DModelOutput | tuple[Tensor]:
        """(batch, channels, height, width) -> .sample, (batch, channels or 2 channels, ...).

        timestep      one for all images, or one for each
        class_labels  one for each image, the number of classes meaning "no label"; None for an
                      unconditional model
        """
        batch, device = len(hidden_states), hidden_states.device
        t = torch.as_tensor(timestep, device=device).reshape(-1).expand(batch)
        y = None if class_labels is None else torch.as_tensor(class_labels, device=device)
        answer = super().forward(hidden_states, t, y)
        return Transformer2DModelOutput(sample=answer) if return_dict else (answer,)  # pyright: ignore

    def reusing_kernels(self) -> Callable[..., Tensor]:
        """This model as a function (x_t, t, y) -> prediction that computes each kernel once.

        Parameters must rest meanwhile.
        """
        return reusing_kernels(_Denoiser(self))


class _Denoiser(nn.Module):
    """A model of diffusers behind our protocol."""

    def __init__(self, model: DiffuSSMTransformer2DModel):
        super().__init__()
        self.model = model

    def forward(self, x_t: Tensor, t: Tensor, y: Tensor | None) -> Tensor:
        return self.model(x_t, t, y, return_dict=False)[0]


def _size(size: int | list[int] | tuple[int, int]) -> int | tuple[int, int]:
    if isinstance(size, int):
        return size
    height, width = size
    return height, width
