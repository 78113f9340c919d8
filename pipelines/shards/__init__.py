"""The shard store: plan, fingerprint, deterministic tar, exclusive commit, numbered manifest.

A shard is the unit of work and the store is the truth. Nothing in this package knows Ray: ``pipelines/executor.py``
only decides where :func:`pipelines.shards.work.ShardWorker.process` runs.
"""
