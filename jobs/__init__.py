"""Entry points for ``python -m jobs`` and ``ray job submit``."""

import os

# A torch thread that waits for the others spins first. Long spinning on shared cores makes everybody wait (20 times
# slower when they are full); no spinning costs half again as much on idle ones. A short spin costs 3 %. OpenMP reads
# this when torch is loaded, so it is set before anything here imports torch; Ray's workers get it too.
os.environ.setdefault("GOMP_SPINCOUNT", "10000")
