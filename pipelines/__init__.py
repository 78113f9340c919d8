"""Data to shards: sources, stages and their Ray Data executor."""
