"""State space layers by name, with what each may be asked for."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from diffussm.config import choose
from diffussm.ssm import lssl, s4d
from diffussm.ssm.dense import DENSE_DISCRETIZATIONS
from diffussm.ssm.discretization import DISCRETIZATIONS
from diffussm.ssm.hippo import HIPPO
from diffussm.ssm.layer import Layer
from diffussm.ssm.lssl import LSSL
from diffussm.ssm.mamba import Mamba
from diffussm.ssm.s4 import S4
from diffussm.ssm.s4d import S4D


@dataclass(frozen=True, kw_only=True)
class Choice:
    """One kind of layer, and the options that it takes beside d_state, dt_min and dt_max.

    The first of its inits, and of its discretizations, is the usual one.
    """

    layer: Callable[..., Layer]
    d_state: int
    """Usual state size."""
    inits: Iterable[str] = ()
    discretizations: Iterable[str] = ()
    fixed: dict[str, Any] = field(default_factory=dict)
    """Options of the layer that differ from its defaults inside a DiffuSSM block."""


SSMS = {
    "s4d": Choice(layer=S4D, d_state=64, inits=s4d.INITS, discretizations=DISCRETIZATIONS),
    "s4": Choice(layer=S4, d_state=64, inits=HIPPO),
    "lssl": Choice(layer=LSSL, d_state=64, inits=lssl.INITS, discretizations=DENSE_DISCRETIZATIONS),
    # the block around it expands and gates already
    "mamba": Choice(layer=Mamba, d_state=16, fixed={"expand": 1}),
}


def ssm_options(
    ssm: str,
    *,
    d_state: int | None,
    init: str | None,
    discretization: str | None,
    dt_min: float,
    dt_max: float,
) -> dict[str, Any]:
    """Keyword arguments for the layer `ssm`, complete; None stands for the usual choice.

    Raises ValueError for an unknown name, or an option that this layer does not have.
    """
    choice = choose("ssm", ssm, SSMS)
    state = choice.d_state if d_state is None else d_state
    options = {"d_state": state, "dt_min": dt_min, "dt_max": dt_max}
    asked = {
        "init": (init, choice.inits),
        "discretization": (discretization, choice.discretizations),
    }
    for name, (value, allowed) in asked.items():
        if allowed:
            value = next(iter(allowed)) if value is None else value
            choose(f"{name} of {ssm}", value, dict.fromkeys(allowed))
            options[name] = value
        elif value is not None:
            raise ValueError(f"{ssm} has no choice of {name}: leave {value!r} out")
    return options | choice.fixed
