"""The equations of the paper: schedule, process, denoiser."""
