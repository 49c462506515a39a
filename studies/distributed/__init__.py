"""What a step sends and takes in several processes, and a model of many GPUs."""
