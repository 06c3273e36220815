"""The tests. Import `stages` first: it sets how long torch's threads spin, which OpenMP reads when torch is loaded."""

import stages  # noqa: F401
