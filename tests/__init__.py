"""The tests. Importing `stages` first lets torch's idle threads sleep; OpenMP reads that when torch is loaded."""

import stages  # noqa: F401
