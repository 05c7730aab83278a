/* SPDX-License-Identifier: Apache-2.0 */
/* What the files of the CUDA backend's host side share: the backend itself, and how a problem becomes a call. */
#ifndef TARE_CUDA_BACKEND_CUH
#define TARE_CUDA_BACKEND_CUH

#include "blas.cuh"
#include "kernels.cuh"

extern "C" {
#include "core/backend.h"
}

namespace tare {

struct backend {
  tare_backend base;
  int device;
  int multiprocessors;
  device_record *record; /* the partial sums lie behind it, and behind them the state of a GHM call without one */
  cudaDeviceProp properties;
  const blas_table *blas; /* these two from the first call that needs them */
  cublasContext *blas_handle;
  mutable tare_bins bins; /* host side: thresholds of the last GHM call, which the next one most likely shares */
};

/** TARE_CUDA_ERROR, with CUDA's name for what went wrong while `doing` it. */
tare_status cuda_failed(cudaError_t status, const char *doing, tare_error *error);

/** Makes a device current for as long as it lives. */
class device_guard {
 public:
  explicit device_guard(int device) {
    status = cudaGetDevice(&before_);
    if (status == cudaSuccess && before_ != device) status = cudaSetDevice(device);
    changed_ = status == cudaSuccess && before_ != device;
  }
  ~device_guard() {
    if (changed_) cudaSetDevice(before_);
  }
  device_guard(const device_guard &) = delete;
  device_guard &operator=(const device_guard &) = delete;
  cudaError_t status;

 private:
  int before_ = 0;
  bool changed_ = false;
};

/* ---- From a problem to a call (plan.cu) ---------------------------------------------------------------------------- */

/** All of it; zeroed first, so that what is not set is the same from call to call. */
void make_call(const backend *self, const tare_problem *problem, call *c);

/** The levels alone, of a problem that differs in nothing else. */
void fill_levels(const tare_problem *problem, call *c);

/** Whether the divisor comes from counting the labels. */
bool counts_divisor(const tare_output &output);

/* ---- Passes (backend.cu) ------------------------------------------------------------------------------------------- */

/** Loss and gradient in one launch; not of a GHM loss. */
cudaError_t launch_evaluation(const call &c, const launch_site &site);

constexpr size_t state_bytes = 8 * (2 + 3 * size_t(TARE_MAX_BINS)); /* of a GHM call without a state of its own */

void make_ghm_call(const backend *self, const tare_problem *problem, ghm_call *c);

/** One pass of a GHM loss, or all of it. */
cudaError_t launch_pass(const ghm_call &c, ghm_pass pass, const launch_site &site);

/* ---- The fused head (linear.cu): see tare_backend -------------------------------------------------------------------- */

tare_status linear_evaluate(tare_backend *base, const tare_problem *problem, const tare_linear *linear, void *workspace,
                            uint64_t workspace_bytes, tare_stream stream, tare_error *error);
tare_status linear_histogram(tare_backend *base, const tare_problem *problem, const tare_linear *linear,
                             void *workspace, uint64_t workspace_bytes, tare_stream stream, tare_error *error);
tare_status linear_workspace(tare_backend *base, const tare_problem *problem, const tare_linear *linear,
                             uint64_t *least, uint64_t *ample, tare_error *error);

}  // namespace tare

#endif
