"""Attention-free image diffusion: DiffuSSM, its state space layers and its diffusion process."""

__version__ = "0.1.0"
