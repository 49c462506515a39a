"""The window: the newest n latents, what is kept with them, the priors, and the distances over both."""
