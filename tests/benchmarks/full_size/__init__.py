"""Parts of the GPU suite: each a file with ``run(rig) -> Iterator[Figure]``; see :mod:`tests.benchmarks.gpu`."""
