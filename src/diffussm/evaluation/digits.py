"""How good drawn digits are: recognised by a classifier that never saw one, and not copied.

The judge is a support vector machine trained on the real digits alone; it knows nothing of the
model. Copies would lie closer to a real digit than real digits lie to each other.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from sklearn.svm import SVC
from torch import Tensor

from diffussm.data import digits
from diffussm.shapes import Image


@dataclass(frozen=True, kw_only=True)
class DigitScore:
    """Accuracy and nearest-neighbour distances of drawn digits."""

    recognised: float
    """Share of images that the judge takes for the class that was asked for."""
    judge_accuracy: float
    """The judge's own accuracy on real digits it was not trained on (one fold in five)."""
    distance: float
    """Median distance from a drawn digit to the nearest real one of its class, in pixel units
    (values in [-1, 1], root of the sum of squares)."""
    real_distance: float
    """The same from a real digit to the nearest other real one of its class."""
    copies: int
    """Drawn digits closer to a real one than any two real ones of their class are."""


def score_digits(images: Image, labels: Sequence[int]) -> DigitScore:
    """Score (batch, 1, 8, 8) images in [-1, 1] drawn as the classes `labels`."""
    real = digits()
    known, classes = real.images.flatten(1), real.labels
    drawn, asked = images.flatten(1).cpu(), torch.tensor(list(labels))

    held_out = torch.arange(len(known)) % 5 == 0
    judge = _judge(known[~held_out], classes[~held_out])
    judge_accuracy = judge.score(known[held_out].numpy(), classes[held_out].numpy())
    recognised = _judge(known, classes).score(drawn.numpy(), asked.numpy())

    nearest = torch.empty(len(drawn))
    nearest_real = torch.empty(len(known))
    copies = 0
    for label in asked.unique():
        ours, theirs = asked == label, classes == label
        among = torch.cdist(known[theirs], known[theirs]).fill_diagonal_(torch.inf).amin(1)
        nearest[ours] = torch.cdist(drawn[ours], known[theirs]).amin(1)
        nearest_real[theirs] = among
        copies += int((nearest[ours] < among.min()).sum())
    compared = torch.isin(classes, asked)
    return DigitScore(
        recognised=float(recognised),
        judge_accuracy=float(judge_accuracy),
        distance=nearest.median().item(),
        real_distance=nearest_real[compared].median().item(),
        copies=copies,
    )


def _judge(images: Tensor, labels: Tensor) -> SVC:
    return SVC(C=10).fit(images.numpy(), labels.numpy())
