"""Speed and memory, as ratios measured inside one run: ``python -m tests.benchmarks [NAME ...] [--out FILE]``."""
