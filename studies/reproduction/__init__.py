"""Does one new element a step do as well as 64? Measured on real data."""
