"""Entry points for ``python -m jobs`` and ``ray job submit``."""

import os

# A torch thread that waits for the others spins first. A long spin more than doubles a step where two processes share
# the cores, no spin makes it slower where they are idle; a short one stays near the best of both
# (`python -m tests.benchmarks.spinning`). OpenMP reads it when torch is loaded, so it is set before anything here
# imports torch; Ray's workers get it too, but for a training that has its cores to itself (`jobs._spinning`).
SPIN = "GOMP_SPINCOUNT"
SPIN_IS_OURS = SPIN not in os.environ
os.environ.setdefault(SPIN, "2000")
