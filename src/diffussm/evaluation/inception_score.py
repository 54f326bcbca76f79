"""Inception score: how sure a classifier is of each image, and how varied its answers are.

    IS = exp( mean over images of KL(p(y|x) || p(y)) ),    p(y) the mean of p(y|x) over a split

Salimans et al., "Improved Techniques for Training GANs", 2016, section 4. As in ADM's evaluator, a
split is 5000 images in the order in which they come, and the last one may have fewer.
"""

from typing import NamedTuple

import torch
from jaxtyping import Float32
from torch import Tensor

SPLIT = 5000
"""Images over which p(y) is taken."""


class InceptionScore(NamedTuple):
    """Mean over splits, and their standard deviation (of the splits themselves, ddof 0)."""

    mean: float
    std: float


def inception_score(
    logits: Float32[Tensor, "images classes"], split: int = SPLIT
) -> InceptionScore:
    """The score of images whose class logits these are; it depends on their order.

    Raises ValueError for no images, or a split of none.
    """
    if split < 1:
        raise ValueError(f"a split must have 1 image or more, not {split}")
    if not len(logits):
        raise ValueError("an Inception score needs images; there are none")
    scores = torch.stack([_score(part.double()) for part in logits.split(split)])
    return InceptionScore(scores.mean().item(), scores.std(correction=0).item())


def _score(logits: Tensor) -> Tensor:
    log_p = logits.log_softmax(1)
    log_marginal = log_p.exp().mean(0).log()
    # an answer that underflows to 0 counts nothing, also where no image gives it
    divergence = torch.where(log_p.exp() > 0, log_p.exp() * (log_p - log_marginal), 0.0)
    return divergence.sum(1).mean().exp()
