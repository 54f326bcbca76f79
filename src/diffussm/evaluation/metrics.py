"""The metrics by name: what each wants of the real and the drawn images, and what it says.

fd    Frechet distance of the pooled features (FID, where Inception-v3 makes them)
sfd   the same of spatial features (sFID)
is    Inception score: mean over splits, and standard deviation; of the drawn images alone
pr    precision and recall
kid   kernel distance: mean over subsets, and standard deviation
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from diffussm.evaluation.features import Features
from diffussm.evaluation.frechet import frechet_distance
from diffussm.evaluation.inception_score import inception_score
from diffussm.evaluation.kid import SUBSET, kid, squared_mmd
from diffussm.evaluation.moments import Moments, moments
from diffussm.evaluation.precision_recall import NEIGHBOURS, precision_recall


class Side:
    """What is known of one set of images, the real or the drawn ones.

    features    by space; of spaces that no metric asks for there are none
    stored      moments that somebody else measured, by space; they come before those of `features`
    """

    def __init__(
        self, features: Mapping[str, Features], stored: Mapping[str, Moments] | None = None
    ):
        self.features = features
        self._moments = dict(stored or {})

    def moments(self, space: str) -> Moments:
        """Of the features in a space, computed once; ValueError for fewer than two images."""
        if space not in self._moments:
            self._moments[space] = moments(self.features[space])
        return self._moments[space]


@dataclass(frozen=True, kw_only=True)
class Metric:
    """One of the metrics."""

    space: str
    """The features that it looks at."""
    compute: Callable[[Side, Side, bool], dict[str, float]]
    """Its numbers from the real side, the drawn side, and whether ADM's way is wanted."""
    moments_do: bool = False
    """Whether the moments of the real images are enough."""
    without_reference: bool = False
    """Whether it looks at drawn images alone."""
    least: int = 2
    """How many drawn images it wants at least."""


def _frechet(name: str, space: str) -> Callable[[Side, Side, bool], dict[str, float]]:
    def compute(real: Side, drawn: Side, adm: bool) -> dict[str, float]:
        return {name: frechet_distance(real.moments(space), drawn.moments(space))}

    return compute


def _score(real: Side, drawn: Side, adm: bool) -> dict[str, float]:
    mean, std = inception_score(drawn.features["logits"])
    return {"IS": mean, "IS std": std}


def _precision_recall(real: Side, drawn: Side, adm: bool) -> dict[str, float]:
    measure = "adm" if adm else "exact"
    found = precision_recall(real.features["pool"], drawn.features["pool"], measure=measure)
    return {"precision": found.precision, "recall": found.recall}


def _kernel(real: Side, drawn: Side, adm: bool) -> dict[str, float]:
    ours, theirs = real.features["pool"], drawn.features["pool"]
    if min(len(ours), len(theirs)) < SUBSET:
        return {"KID": squared_mmd(ours, theirs)}  # of all at once: unbiased as well
    mean, std = kid(ours, theirs)
    return {"KID": mean, "KID std": std}


METRICS: dict[str, Metric] = {
    "fd": Metric(space="pool", compute=_frechet("FD", "pool"), moments_do=True),
    "sfd": Metric(space="spatial", compute=_frechet("sFD", "spatial"), moments_do=True),
    "is": Metric(space="logits", compute=_score, without_reference=True, least=1),
    "pr": Metric(space="pool", compute=_precision_recall, least=NEIGHBOURS + 1),
    "kid": Metric(space="pool", compute=_kernel),
}
