"""Denoising diffusion probabilistic models (Ho, Jain, Abbeel 2020): the paper as a library."""
