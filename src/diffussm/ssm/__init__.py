"""State space models as mathematics and as layers: (batch, length, dim) -> the same shape."""

from diffussm.ssm.bidirectional import Bidirectional
from diffussm.ssm.layer import resample
from diffussm.ssm.lssl import LSSL
from diffussm.ssm.mamba import Mamba
from diffussm.ssm.s4 import S4
from diffussm.ssm.s4d import S4D

__all__ = ["LSSL", "S4", "S4D", "Bidirectional", "Mamba", "resample"]
