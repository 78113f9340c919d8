"""Training of the tiny stack, one part a file: pictures, autoencoder, CLIP, identity network, diffusion model."""
