"""Trainable networks: encoders and hypernetworks."""
