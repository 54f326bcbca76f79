"""What the network predicts: the noise, the image, or the velocity between them.

Each target is a mix p x_0 + q noise, so that with x_t = alpha x_0 + sigma noise

    [ x_t    ]   [ alpha  sigma ] [ x_0   ]        x_0   = (q x_t - sigma target) / d
    [ target ] = [ p      q     ] [ noise ] ,      noise = (alpha target - p x_t) / d

with the determinant d = alpha q - sigma p.

    eps   p = 0        q = 1        Ho et al. 2020, equation 14
    x0    p = 1        q = 0
    v     p = -sigma   q = alpha    Salimans & Ho, "Progressive Distillation", 2022, appendix D
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from diffussm.shapes import Image

Scale = Float[Tensor, "batch 1 1 1"]


@dataclass(frozen=True)
class Prediction:
    """One type of prediction, from the two coefficients (p, q) of its target."""

    mix: Callable[[Scale, Scale], tuple[Scale, Scale]]

    def target(self, x_0: Image, noise: Image, alpha: Scale, sigma: Scale) -> Image:
        """What the network should answer for x_t = alpha x_0 + sigma noise."""
        p, q = self.mix(alpha, sigma)
        return p * x_0 + q * noise

    def x_0(self, prediction: Image, x_t: Image, alpha: Scale, sigma: Scale) -> Image:
        """The image that `prediction` stands for."""
        _, q = self.mix(alpha, sigma)
        return (q * x_t - sigma * prediction) / self._determinant(alpha, sigma)

    def eps(self, prediction: Image, x_t: Image, alpha: Scale, sigma: Scale) -> Image:
        """The noise that `prediction` stands for."""
        p, _ = self.mix(alpha, sigma)
        return (alpha * prediction - p * x_t) / self._determinant(alpha, sigma)

    def error_ratio(self, alpha: Scale, sigma: Scale) -> Scale:
        """Squared error of the target for each unit of squared error of x_0."""
        return (self._determinant(alpha, sigma) / sigma) ** 2

    def _determinant(self, alpha: Scale, sigma: Scale) -> Scale:
        p, q = self.mix(alpha, sigma)
        return alpha * q - sigma * p


PREDICTIONS: dict[str, Prediction] = {
    "eps": Prediction(lambda alpha, sigma: (torch.zeros_like(alpha), torch.ones_like(sigma))),
    "x0": Prediction(lambda alpha, sigma: (torch.ones_like(alpha), torch.zeros_like(sigma))),
    "v": Prediction(lambda alpha, sigma: (-sigma, alpha)),
}
