"""Data so simple that the best possible denoiser is known in closed form."""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass
class GaussianData:
    """Images of shape (channels, 1, 1), drawn from N(mean, covariance)."""

    mean: Tensor
    covariance: Tensor

    def draw(self, count, generator):
        noise = torch.randn(count, len(self.mean), dtype=torch.float64, generator=generator)
        x_0 = self.mean + noise @ torch.linalg.cholesky(self.covariance).T
        return x_0[:, :, None, None]

    def noised(self, alpha, sigma):
        """Mean and covariance of x_t = alpha x_0 + sigma noise."""
        identity = torch.eye(len(self.mean), dtype=torch.float64)
        return alpha * self.mean, alpha**2 * self.covariance + sigma**2 * identity

    def estimate(self, x_t, alpha, sigma):
        """E[x_0 | x_t] for x_t of shape (batch, channels, 1, 1)."""
        mean, covariance = self.noised(alpha, sigma)
        away = torch.linalg.solve(covariance, (x_t[:, :, 0, 0] - mean).T)
        return (self.mean + alpha * (self.covariance @ away).T)[:, :, None, None]


@dataclass
class MixtureData:
    """Two Gaussians, the first with probability `weight`."""

    weight: float
    first: GaussianData
    second: GaussianData

    def estimate(self, x_t, alpha, sigma):
        log_odds = torch.tensor([self.weight, 1 - self.weight], dtype=torch.float64).log()
        parts = []
        for part in (self.first, self.second):
            normal = torch.distributions.MultivariateNormal(*part.noised(alpha, sigma))
            parts.append(normal.log_prob(x_t[:, :, 0, 0]))
        share = torch.softmax(log_odds + torch.stack(parts, dim=1), dim=1)
        share = share[:, :, None, None, None]
        first, second = (part.estimate(x_t, alpha, sigma) for part in (self.first, self.second))
        return share[:, 0] * first + share[:, 1] * second


def correlated():
    """Two channels, correlated, away from zero."""
    mean = torch.tensor([1.0, -0.5], dtype=torch.float64)
    return GaussianData(mean, torch.tensor([[0.5, 0.3], [0.3, 0.4]], dtype=torch.float64))


def denoiser(data, diffusion):
    """The denoiser that knows `data`, in the prediction type of `diffusion`, with v = 0."""
    alphas_cumprod = diffusion.schedule.alphas_cumprod

    def predict(x_t, t, y):
        (step,) = t.unique().tolist()
        alpha = alphas_cumprod[step].sqrt()
        sigma = (1 - alphas_cumprod[step]).sqrt()
        x_0 = data.estimate(x_t, alpha, sigma)
        eps = (x_t - alpha * x_0) / sigma
        answers = {"x0": x_0, "eps": eps, "v": alpha * eps - sigma * x_0}
        answer = answers[diffusion.config.prediction]
        if diffusion.config.learned_variance:
            return torch.cat([answer, torch.zeros_like(answer)], dim=1)
        return answer

    return predict
