"""What a forward pass costs, part by part."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Cost:
    """Multiply-adds of the parts of a forward pass."""

    linears: int
    """Matrix products and convolutions of a few pixels."""
    mixing: int
    """What carries information along the sequence: FFTs of convolutions, scans, attention."""
    kernels: int
    """Making the kernels: once a batch in training, once in all while sampling."""
    positions: int
    """Sequence length that the state space layer, or attention, works on."""
    tokens: int
    """Length of the residual stream."""

    @property
    def total(self) -> int:
        """Linears and mixing, what the paper counts."""
        return self.linears + self.mixing
