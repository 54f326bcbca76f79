"""From two sets of images to numbers, and to the part of the protocol that both share."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from diffussm import __version__
from diffussm.config import choose
from diffussm.evaluation.features import Features, Pixels
from diffussm.evaluation.metrics import METRICS, Metric, Side
from diffussm.evaluation.moments import Moments
from diffussm.evaluation.networks import Narrowed, Seer
from diffussm.evaluation.pictures import Pictures, Progress
from diffussm.evaluation.protocol import FORMAT
from diffussm.evaluation.ranks import Alone, Ranks
from diffussm.evaluation.references import Reference
from diffussm.evaluation.sharing import see


class Scores(NamedTuple):
    """What samples are worth."""

    metrics: dict[str, float]
    warnings: tuple[str, ...]
    pixels: Pixels | None
    """The samples, on rank 0, where they were to be kept."""


class Evaluator:
    """Scores images against one reference, of which the features are made once: by `prepare`.

    reference    None where only metrics without one are asked for
    metrics      names in `diffussm.evaluation.metrics.METRICS`; unless given, all that the features
                 and the reference allow
    adm          ADM's way of precision and recall
    Raises ValueError for metrics that they do not allow. Every rank makes one, and they work
    together.
    """

    def __init__(
        self,
        seer: Seer,
        reference: Reference | None,
        metrics: Sequence[str] | None = None,
        *,
        adm: bool = False,
        ranks: Ranks | None = None,
    ):
        self.seer, self.reference, self.adm = seer, reference, adm
        self.ranks = ranks or Alone()
        self._stored = self._stored_moments()
        self.metrics = self._chosen(metrics)
        """Names of what is measured."""
        self._real: Side | None = None
        self._identity: str | None = None

    def prepare(self, progress: Progress = lambda done: None) -> None:
        """See the reference, unless that was done; ValueError where it cannot be seen."""
        if self._real is None:
            self._real, self._identity = self._look(progress)

    def check_count(self, count: int) -> None:
        """ValueError where `count` drawn images are too few for a metric."""
        for name in self.metrics:
            least = METRICS[name].least
            if count < least:
                raise ValueError(
                    f"{count} images are too few for {name}, which wants {least}; draw more, or "
                    "name other metrics"
                )

    def score(
        self, drawn: Pictures, progress: Progress = lambda done: None, keep: bool = False
    ) -> Scores:
        """What `drawn` images are worth; the same on all ranks, which must all ask."""
        self.prepare()
        spaces = {METRICS[name].space for name in self.metrics}
        network = Narrowed(self.seer.network, spaces)
        seen = see(drawn, network, self.ranks, progress, keep)

        def measure() -> tuple[dict[str, float], tuple[str, ...]] | None:
            return self._measure(Side(seen.features)) if self.ranks.rank == 0 else None

        metrics, warnings = self.ranks.gather(self.ranks.agree(measure))[0]
        return Scores(metrics, warnings, seen.pixels)

    def protocol(self) -> dict[str, Any]:
        """All but how the images were drawn; `prepare` comes first."""
        reference = self.reference
        return {
            "format": FORMAT,
            "features": self.seer.network.name,
            "features_identity": self.seer.network.identity,
            "resize": self.seer.resize,
            "reference": reference and reference.name,
            "reference_identity": self._identity,
            "reference_count": reference and reference.pictures.count,
            "adm": self.adm,
            "ranks": self.ranks.size,
            "diffussm": __version__,
        }

    def _chosen(self, wanted: Sequence[str] | None) -> list[str]:
        """The metrics, in the order of `METRICS`."""
        if wanted is None:
            return [name for name, metric in METRICS.items() if not self._missing(metric)]
        if not wanted:
            raise ValueError(f"no metric was named; take some of {', '.join(METRICS)}")
        for name in wanted:
            missing = self._missing(choose("metric", name, METRICS))
            if missing:
                raise ValueError(f"the metric {name!r} cannot be had: {missing}")
        return [name for name in METRICS if name in wanted]

    def _missing(self, metric: Metric) -> str:
        """What a metric wants and does not get; "" where nothing is."""
        spaces, reference = self.seer.network.spaces, self.reference
        if metric.space not in spaces:
            return (
                f"{self.seer.network.name} gives no {metric.space!r} features, only "
                f"{', '.join(spaces)}"
            )
        if metric.without_reference:
            return ""
        if reference is None:
            return "there is no reference; give one"
        if reference.pictures.count or (metric.moments_do and metric.space in self._stored):
            return ""
        return (
            f"{reference.name} holds no images (arr_0), only moments of Inception's features; give "
            "a reference that does"
        )

    def _stored_moments(self) -> dict[str, Moments]:
        """Moments that come with the reference and stand in for its images, by space."""
        if self.reference is None or not self.seer.published:
            return {}
        spaces = {metric.space for metric in METRICS.values() if metric.moments_do}
        found = {space: self.reference.stored(space) for space in spaces}
        return {space: moments for space, moments in found.items() if moments}

    def _look(self, progress: Progress) -> tuple[Side, str | None]:
        """The real side, on rank 0, and the reference's identity."""
        reference = self.reference
        if reference is None:
            return Side({}), None
        asked = [METRICS[name] for name in self.metrics if not METRICS[name].without_reference]
        spaces = {
            metric.space
            for metric in asked
            if not (metric.moments_do and metric.space in self._stored)
        }
        features, identity = {}, reference.file and reference.file.identity
        if spaces or identity is None:
            network = Narrowed(self.seer.network, spaces)
            features, found, _ = see(reference.pictures, network, self.ranks, progress)
            identity = identity or found
        return Side(features, self._stored), identity

    def _called(self, plain: str) -> str:
        """The plain name, its first word as the seer calls it: KID-digits std for KID std."""
        name, *rest = plain.split(" ", 1)
        return " ".join([self.seer.called(name), *rest])

    def _measure(self, drawn: Side) -> tuple[dict[str, float], tuple[str, ...]]:
        assert self._real is not None
        metrics, warnings = {}, []
        for name in self.metrics:
            metric = METRICS[name]
            found = metric.compute(self._real, drawn, self.adm)
            metrics |= {self._called(plain): value for plain, value in found.items()}
            if metric.moments_do:
                for whose, side in (("samples", drawn), ("reference", self._real)):
                    doubt = side.moments(metric.space).warning
                    if doubt:
                        warnings.append(f"{self._called(next(iter(found)))}, {whose}: {doubt}")
        if any(_all_alike(features) for features in drawn.features.values()):
            warnings.append(
                f"all samples look the same to {self.seer.network.name}: the model may have "
                "collapsed, or the file holds one image again and again"
            )
        return metrics, tuple(warnings)


def _all_alike(features: Features) -> bool:
    return len(features) > 1 and bool((features == features[0]).all())
