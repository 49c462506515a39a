// What the stand-ins for the instructions of tensor cores have in common.
#pragma once

namespace mow::cuda {

constexpr int kTerms = 4;  // products that are added at once, with no place beyond those of a float32

float add(float c, const double (&products)[kTerms]);

}  // namespace mow::cuda
