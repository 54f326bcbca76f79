"""The package's shape vocabulary: one word for each axis, everywhere.

batch    images in a batch          length   tokens in a sequence
dim      model width (d_model)      state    size of one SSM's state (d_state)
channels, height, width             of an image or of its latent
steps    diffusion time steps; `t` counts them, 0 being the least noise
"""

from jaxtyping import Float, Int
from torch import Tensor

Image = Float[Tensor, "batch channels height width"]
Predicted = Float[Tensor, "batch predicted height width"]
"""A network's answer: `channels` channels, or twice as many, the second half being v."""

Signal = Float[Tensor, "batch length dim"]
Condition = Float[Tensor, "batch dim"]
Labels = Int[Tensor, " batch"]
TimeStep = Int[Tensor, " batch"]
