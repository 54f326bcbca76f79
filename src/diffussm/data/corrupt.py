"""How many images could not be read: a few are left out, many stop the run."""

from diffussm.data.dataset import Batch

NAMED = 10
"""How many names a sentence has at most."""


class CorruptCount:
    """Counts the different images that could not be read, out of `size`.

    `max_corrupt` is the largest share of them that is borne, in [0, 1].
    """

    def __init__(self, size: int, max_corrupt: int | float):
        self.size, self.max_corrupt = size, max_corrupt
        self.names: dict[str, int] = {}
        """Name and trouble of each, and how often it was met, in the order in which they came."""

    def add(self, batch: Batch) -> None:
        """Note what could not be read in a batch."""
        for name in batch.corrupt:
            self.names[name] = self.names.get(name, 0) + 1

    def check(self) -> None:
        """Raise ValueError, with names, where they are more than the share that is borne."""
        if len(self.names) > self.max_corrupt * self.size:
            raise ValueError(
                f"{self.summary()}. That is more than the share of {self.max_corrupt:g} that "
                "data.max_corrupt allows; mend or remove them, or raise it"
            )

    def summary(self) -> str:
        """One sentence with the number of unreadable images and the first names; "" for none."""
        if not self.names:
            return ""
        names = list(self.names)
        more = f", and {len(names) - NAMED:,} more" if len(names) > NAMED else ""
        return (
            f"{len(names):,} of {self.size:,} images could not be read: "
            f"{', '.join(names[:NAMED])}{more}"
        )
