"""The idea in pictures: what a window holds, and where a distance pushes a latent."""
