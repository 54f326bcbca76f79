"""How a run is doing, in words: what a person would want to be told before the month is over.

diverging     the loss far above its usual value, or gradients that grow and grow
data-bound    a good part of each step is spent waiting for images
fine          neither: the device computes, the loss behaves
"""

from collections import deque
from collections.abc import Sequence
from statistics import median

from diffussm.training.step import Step

RECENT, USUAL = 20, 400
"""Steps that say how it is now, and those before them that say how it usually is."""
WAITING = 0.2
"""Share of the time above which waiting is worth a word."""
LOSS, GRADIENT = 2.0, 10.0
"""How many times its usual value is too much."""

FINE = "fine"


class Health:
    """Told each step, it says how the run is doing."""

    def __init__(self):
        self._steps: deque[Step] = deque(maxlen=RECENT + USUAL)

    def add(self, step: Step) -> None:
        """Note one step."""
        self._steps.append(step)

    @property
    def verdict(self) -> str:
        """`FINE`, or one sentence with what is wrong and what may help."""
        if len(self._steps) < 2 * RECENT:
            return FINE
        steps = list(self._steps)
        usual, recent = steps[:-RECENT], steps[-RECENT:]
        skipped = sum(step.skipped for step in recent)
        if skipped > 1:
            return f"diverging: {skipped} of the last {RECENT} steps were not finite; {ADVICE}"
        before, now = ([step for step in part if not step.skipped] for part in (usual, recent))
        loss = _ratio([step.simple for step in now], [step.simple for step in before])
        if loss > LOSS:
            return f"diverging: the loss is {loss:.1f} times its usual value; {ADVICE}"
        gradient = _ratio([step.grad_norm for step in now], [step.grad_norm for step in before])
        if gradient > GRADIENT:
            return f"diverging: gradients are {gradient:.0f} times as large as usual; {ADVICE}"
        waited = sum(step.waited for step in recent) / sum(step.seconds for step in recent)
        if waited > WAITING:
            return (
                f"data-bound: {waited:.0%} of the time is spent waiting for images; more "
                "data.workers or a faster disk would help"
            )
        return FINE


ADVICE = "the learning rate may be too high"


def _ratio(recent: Sequence[float], usual: Sequence[float]) -> float:
    """The median now over the median before; 1 where there is nothing to compare with."""
    before = median(usual) if usual else 0.0
    return median(recent) / before if before > 0 else 1.0
