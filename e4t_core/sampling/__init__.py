"""The one sampler that every method generates with."""
