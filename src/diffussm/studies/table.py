"""The results of a study in Markdown: a table for each claim, mean and spread over the seeds."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import mean, stdev

from diffussm.studies.budget import EQUAL
from diffussm.studies.measures import METRICS
from diffussm.studies.result import Result
from diffussm.studies.study import Claim, Study

Results = Mapping[str, Sequence[Result]]
"""Of each member, one for each seed that is finished."""

NONE = "-"
DURATIONS = (("hours", 3600, 1), ("minutes", 60, 0), ("seconds", 1, 0))
"""Name, seconds, digits after the point."""


@dataclass(frozen=True)
class Spread:
    """Mean and standard deviation of what several seeds gave; None where there are too few."""

    mean: float | None
    deviation: float | None

    @classmethod
    def of(cls, values: Sequence[float]) -> "Spread":
        """Of some numbers: the deviation is that of a sample (divided by one less than them)."""
        return cls(mean(values) if values else None, stdev(values) if len(values) > 1 else None)

    def shown(self, digits: int, scale: float = 1.0) -> str:
        """As text: 0.0732 ± 0.0003."""
        if self.mean is None:
            return NONE
        around = "" if self.deviation is None else f" ± {scale * self.deviation:.{digits}f}"
        return f"{scale * self.mean:.{digits}f}{around}"


def spread(results: Sequence[Result], metric: str) -> Spread:
    """Of one metric over the seeds that have it."""
    return Spread.of(values(results, metric))


def values(results: Sequence[Result], metric: str) -> list[float]:
    """One metric of each seed that has it."""
    found = [result.metrics.get(metric) for result in results]
    return [value for value in found if value is not None]


def groups(study: Study) -> list[Claim]:
    """The claims, and the members that stand in none of them."""
    named = {member for claim in study.claims for member in claim.members}
    others = tuple(member for member in study.members if member not in named)
    rest = Claim(says="Other members" if named else study.title, members=others)
    return [*study.claims, rest] if others else list(study.claims)


def study_table(study: Study, results: Results) -> str:
    """The whole page."""
    heads = ["member", "parameters", "M multiply-adds", "images", "seeds"]
    heads += [_heading(study, name) for name in study.measure.metrics] + ["seconds"]
    parts = [f"# {study.title}", _preface(study, results)]
    for claim in groups(study):
        rows = [_row(study, member, results.get(member, ())) for member in claim.members]
        lines = [heads, ["---"] * len(heads), *rows]
        text = "\n".join(f"| {' | '.join(line)} |" for line in lines)
        parts.append(f"## {claim.says}\n\n{text}")
    return "\n\n".join(parts) + "\n"


def _preface(study: Study, results: Results) -> str:
    every = [result for several in results.values() for result in several]
    wanted = len(study.members) * len(study.seeds)
    machines = sorted({_machine(result) for result in every})
    diverged = sum(bool(result.facts.diverged) for result in every)
    trained = _duration(sum(result.facts.seconds for result in every))
    lines = [
        f"`{study.command}`: {len(every)} of {wanted} results, {trained} of training; "
        f"{EQUAL[study.budget]} {study.reference}.",
        f"{'; '.join(machines)}." if machines else "",
        "± is the standard deviation over the seeds. Multiply-adds: of one forward pass, by "
        "formula, in millions. Seconds: of training, a mean.",
        f"{diverged} diverged and count in no mean." if diverged else "",
    ]
    return "\n".join(line for line in lines if line)


def _duration(seconds: int | float) -> str:
    """In the largest unit of which there are two: 3.4 hours, 90 minutes, 45 seconds."""
    fits = (each for each in DURATIONS if seconds >= 2 * each[1])
    name, unit, digits = next(fits, DURATIONS[-1])
    return f"{seconds / unit:.{digits}f} {name}"


def _machine(result: Result) -> str:
    facts = result.facts
    threads = f"{facts.threads} thread{'s' if facts.threads > 1 else ''}"
    return f"{facts.processor}, {threads}, torch {facts.torch}"


def _heading(study: Study, name: str) -> str:
    heading = METRICS[name].heading
    return heading.replace("guided", f"guided {study.measure.guidance:g}")


def _row(study: Study, member: str, results: Sequence[Result]) -> list[str]:
    if not results:
        return [member, *[NONE] * (5 + len(study.measure.metrics))]
    facts = results[0].facts
    diverged = sum(bool(result.facts.diverged) for result in results)
    good = [result for result in results if not result.facts.diverged]
    cells = [f"{facts.parameters:,}", f"{facts.multiply_adds / 1e6:.1f}"]
    cells += [f"{good[0].facts.images:,}" if good else NONE]
    cells += [f"{len(results)} ({diverged} diverged)" if diverged else str(len(results))]
    for name in study.measure.metrics:
        metric = METRICS[name]
        cells.append(spread(results, name).shown(metric.digits, metric.scale))
    return [member, *cells, Spread.of([r.facts.seconds for r in good]).shown(0).split(" ")[0]]
