"""Which device a command runs on."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

    from diffussm.training.distributed import World


def choose_device(name: str) -> "torch.device":
    """The named device; "auto" is the GPU if there is one. ValueError where it does not exist."""
    import torch

    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.zeros(1, device=device).item()  # it exists, and it computes
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f"cannot run on device {name!r}: {reason}; try auto or cpu") from None
    return device


def own_device(name: str, world: "World") -> "torch.device":
    """The device of this rank: with several ranks and GPUs, each has one of its own."""
    import torch

    if world.size > 1 and name.startswith("cuda:"):
        raise ValueError(f"{world.size} ranks cannot share {name}; say --device cuda, or start one")
    if world.size > 1 and (name == "cuda" or (name == "auto" and torch.cuda.is_available())):
        name = f"cuda:{world.local_rank}"
    chosen = choose_device(name)
    if chosen.index is not None and chosen.type == "cuda":
        torch.cuda.set_device(chosen)
    return chosen
