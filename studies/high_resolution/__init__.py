"""What a step on large pictures keeps and takes, and a run on photographs of 1024 x 1024."""
