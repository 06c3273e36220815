"""Denoising diffusion probabilistic models (Ho, Jain, Abbeel 2020): the paper, without any pipeline around it."""
