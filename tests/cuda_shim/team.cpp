// Prints how many blocks share a small window that eight might share.
#include "cuda/team.cuh"

#include <cstdio>

int main() { std::printf("%d\n", mow::cuda::team_size(8)); }
