// The ops of the library: their schemas, and which function runs them on which device.
//
// Each distance returns the value and, when `needs_grad`, its gradient for `current` [k, D] (else an empty tensor [0]).
// What depends on the width, the type and the options alone comes in as a small float64 tensor on the CPU, made once by
// mow_kernels/tables.py: each further argument costs half a microsecond a call, a list of numbers several.

#include <torch/csrc/stable/library.h>

#include "cpu/ops.h"

STABLE_TORCH_LIBRARY(mow_kernels, m) {
  m.def(
      "mmd_fwd(Tensor current, Tensor history, Tensor? prior, Tensor table, bool needs_grad) -> "
      "(Tensor value, Tensor g_current)");
  m.def(
      "cramer_wold_fwd(Tensor current, Tensor history, Tensor? prior, Tensor phi, float gamma, bool needs_grad) -> "
      "(Tensor value, Tensor g_current)");
  m.def(
      "sliced_wasserstein_fwd(Tensor current, Tensor history, Tensor? prior, Tensor directions, Tensor? normal, float p, "
      "bool needs_grad) -> (Tensor value, Tensor g_current)");

  // That gradient by itself, to the same bits, which visits nothing that the value alone depends on.
  m.def("mmd_gradient(Tensor current, Tensor history, Tensor? prior, Tensor table) -> Tensor g_current");
  m.def("cramer_wold_gradient(Tensor current, Tensor history, Tensor? prior, Tensor phi, float gamma) -> Tensor g_current");
  m.def(
      "sliced_wasserstein_gradient(Tensor current, Tensor history, Tensor? prior, Tensor directions, Tensor? normal, "
      "float p) -> Tensor g_current");

  // The distances over a window that is kept in `sums` (csrc/cpu/running.h): rows [head - rows, head) of a ring of `size`.
  // To N(0, I), or to a prior sample that is such a window, too: `prior` are its new rows.
  m.def(
      "mmd_running_fwd(Tensor(a!) sums, Tensor current, Tensor(b!)? prior_sums, Tensor? prior, int size, int head, "
      "int rows, Tensor table, bool needs_grad) -> (Tensor value, Tensor g_current)");
  m.def(
      "mmd_running_push(Tensor(a!) sums, Tensor rows, Tensor(b!)? prior_sums, Tensor? prior, int size, int head, "
      "int older, Tensor table, bool evaluated) -> ()");
  m.def(
      "cramer_wold_running_fwd(Tensor(a!) sums, Tensor current, Tensor(b!)? prior_sums, Tensor? prior, int size, int head, "
      "int rows, Tensor phi, float gamma, bool needs_grad) -> (Tensor value, Tensor g_current)");
  m.def(
      "cramer_wold_running_push(Tensor(a!) sums, Tensor rows, Tensor(b!)? prior_sums, Tensor? prior, int size, int head, "
      "int older, Tensor phi, float gamma, bool evaluated) -> ()");

  // Over a window whose projections are kept sorted in `keys` (csrc/cpu/sorted_projections.h).
  m.def(
      "sliced_wasserstein_sorted_fwd(Tensor(a!) keys, Tensor current, int size, int head, int rows, int list, "
      "Tensor directions, Tensor normal, bool needs_grad) -> (Tensor value, Tensor g_current)");
  m.def(
      "sliced_wasserstein_sorted_push(Tensor(a!) keys, Tensor rows, int size, int head, int older, int list, "
      "Tensor directions, bool evaluated) -> ()");

  m.def("k_center(Tensor x, int k, int start) -> (Tensor indices, Tensor squared_radius, Tensor counts)");
}

STABLE_TORCH_LIBRARY_IMPL(mow_kernels, CPU, m) {
  m.impl("mmd_fwd", TORCH_BOX(&mow::cpu::mmd_fwd));
  m.impl("cramer_wold_fwd", TORCH_BOX(&mow::cpu::cramer_wold_fwd));
  m.impl("mmd_gradient", TORCH_BOX(&mow::cpu::mmd_gradient));
  m.impl("cramer_wold_gradient", TORCH_BOX(&mow::cpu::cramer_wold_gradient));
  m.impl("sliced_wasserstein_gradient", TORCH_BOX(&mow::cpu::sliced_wasserstein_gradient));
  m.impl("mmd_running_fwd", TORCH_BOX(&mow::cpu::mmd_running_fwd));
  m.impl("mmd_running_push", TORCH_BOX(&mow::cpu::mmd_running_push));
  m.impl("cramer_wold_running_fwd", TORCH_BOX(&mow::cpu::cramer_wold_running_fwd));
  m.impl("cramer_wold_running_push", TORCH_BOX(&mow::cpu::cramer_wold_running_push));
  m.impl("sliced_wasserstein_fwd", TORCH_BOX(&mow::cpu::sliced_wasserstein_fwd));
  m.impl("sliced_wasserstein_sorted_fwd", TORCH_BOX(&mow::cpu::sliced_wasserstein_sorted_fwd));
  m.impl("sliced_wasserstein_sorted_push", TORCH_BOX(&mow::cpu::sliced_wasserstein_sorted_push));
  m.impl("k_center", TORCH_BOX(&mow::cpu::k_center));
}
