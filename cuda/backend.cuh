/* SPDX-License-Identifier: Apache-2.0 */
/* What the files of the CUDA backend's host side share: the backend itself, and how a problem becomes a call. */
#ifndef TARE_CUDA_BACKEND_CUH
#define TARE_CUDA_BACKEND_CUH

#include <cuda.h>

#include "blas.cuh"
#include "class_sums.cuh"
#include "kernels.cuh"
#include "norms.cuh"

extern "C" {
#include "core/backend.h"
#include "core/levels.h"
}

namespace tare {

/** The driver's calls that have no twin in the runtime, found when a context is made. */
struct driver_calls {
  decltype(&cuCtxGetCurrent) CtxGetCurrent;
  decltype(&cuCtxPushCurrent) CtxPushCurrent;
  decltype(&cuCtxPopCurrent) CtxPopCurrent;
  decltype(&cuDeviceGet) DeviceGet;
  decltype(&cuDevicePrimaryCtxRetain) DevicePrimaryCtxRetain;
};

struct backend {
  tare_backend base;
  int device;
  int multiprocessors, l2_bytes, cooperative, major, minor; /* the GPU's attributes */
  driver_calls driver;
  CUcontext primary;      /* the GPU's primary context */
  device_record *record;  /* the partial sums lie behind it, and behind them the state of a GHM call without one */
  mutable tare_bins bins; /* host side: thresholds of the last GHM call, which the next one most likely shares */
};

/** TARE_STATUS_CUDA_ERROR, with CUDA's name for what went wrong while `doing` it. */
tare_status cuda_failed(cudaError_t status, const char *doing, tare_error *error);

/** Whether a stream is being captured; the default one also while a stream that it waits for is. Harms no capture. */
cudaError_t is_captured(cudaStream_t stream, bool *captured);

/** Makes a backend's GPU current for as long as it lives, and then what was current before: another GPU, a context of
 *  the caller's own, or nothing. It makes no context on any other GPU. */
class device_guard {
 public:
  explicit device_guard(const backend *self);
  ~device_guard();
  device_guard(const device_guard &) = delete;
  device_guard &operator=(const device_guard &) = delete;
  cudaError_t status;

 private:
  const driver_calls &driver_;
  bool pushed_ = false;
};
constexpr const char *making_current = "making the context's GPU current";

/** For as long as it lives, this thread may allocate, load and wait for its own streams while some stream is captured.
 *  None of that becomes part of the capture. */
class relaxed_capture {
 public:
  relaxed_capture();
  ~relaxed_capture();
  relaxed_capture(const relaxed_capture &) = delete;
  relaxed_capture &operator=(const relaxed_capture &) = delete;

 private:
  cudaStreamCaptureMode mode_ = cudaStreamCaptureModeRelaxed;
};

/* ---- From a problem to a call (call.cu) -------------------------------------------------------------------------- */

/** Fills the whole call. It is zeroed first, so fields that are not set are the same from call to call. */
void make_call(const backend *self, const tare_problem *problem, call *c);

/** The levels alone, of a problem that differs in nothing else. */
void fill_levels(const tare_problem *problem, call *c);

/** Output and levels of a call, from a part of its problem: see tare_levels_part. */
void take_part(const backend *self, const tare_problem *part, call *c);

/** The call that sums what `evaluation`, a call or a ghm_call, is going to compute. */
void make_class_sums_call(const tare_problem *problem, const call &evaluation, tare_class_sums *room,
                          class_sums_call *c);
void make_class_sums_call(const tare_problem *problem, const ghm_call &evaluation, tare_class_sums *room,
                          class_sums_call *c);

/** Sums the classes, if that is wanted. `evaluation`: a call or a ghm_call. */
template <typename Call>
cudaError_t sum_classes(const tare_problem *problem, const Call &evaluation, tare_class_sums *room,
                        const launch_site &site) {
  if (!tare_sums_classes(problem)) return cudaSuccess;
  class_sums_call c;
  make_class_sums_call(problem, evaluation, room, &c);
  return launch_class_sums(c, site);
}

/** The call that counts the gradient norms of the rows of `evaluation`. */
void make_norms_call(const tare_problem *problem, const call &evaluation, const tare_bins &bins, norms_call *c);

/* ---- Passes (backend.cu) ----------------------------------------------------------------------------------------- */

/** Counts labels and sums targets, where the output wants it. `reports`: as launch_count. */
cudaError_t launch_normalizers(const tare_problem *problem, const call &c, const launch_site &site,
                               bool reports = false);

/** Loss and gradient in one launch; not of a GHM loss. */
cudaError_t launch_evaluation(const call &c, const launch_site &site);

constexpr size_t state_bytes = 8 * (2 + 3 * size_t(TARE_MAX_BINS)); /* of a GHM call without a state of its own */

/** The state for such a call: in a context's memory behind its record and the places for partial sums. */
inline void *own_state(const backend *self) { return reinterpret_cast<double *>(self->record + 1) + most_partials; }

void make_ghm_call(const backend *self, const tare_problem *problem, ghm_call *c);

/** One pass of a GHM loss, or all of it. */
cudaError_t launch_pass(const ghm_call &c, ghm_pass pass, const launch_site &site);

/* ---- Levels with losses, weights or divisors of their own (levels.cu) ------------------------------------------- */

constexpr size_t level_loss_bytes = TARE_MAX_LEVELS * sizeof(double); /* of a call at work, behind a context's state */
inline double *level_values(const backend *self) {
  return reinterpret_cast<double *>(static_cast<char *>(own_state(self)) + state_bytes);
}

/** Counts labels and sums targets of each level by itself, where the output wants that. */
cudaError_t launch_level_normalizers(const backend *self, const tare_problem *problem, const launch_site &site,
                                     bool reports);

/** Loss and gradient of each level, and their sum; of a GHM loss, its last pass. */
cudaError_t evaluate_levels(const backend *self, const tare_problem *problem, const call &whole,
                            const launch_site &site);
cudaError_t evaluate_levels(const backend *self, const tare_problem *problem, const ghm_call &whole,
                            const launch_site &site);

/* ---- The verbs (backend.cu): see tare_backend -------------------------------------------------------------------- */

/** TARE_STATUS_UNSUPPORTED for what a GPU does not compute. */
tare_status refuse_what_is_missing(const tare_problem *problem, tare_error *error);

tare_status needs(tare_backend *base, const tare_problem *problem, uint64_t *own_bytes, tare_error *error);
tare_status evaluate(tare_backend *base, const tare_plan *plan, tare_stream stream, tare_error *error);
tare_status label_counts(tare_backend *base, const tare_problem *problem, tare_counts *counts, int64_t *per_class,
                         tare_stream stream, tare_error *error);
tare_status ghm_histogram(tare_backend *base, const tare_problem *problem, tare_stream stream, tare_error *error);
tare_status ghm_density_update(tare_backend *base, const tare_problem *problem, tare_stream stream, tare_error *error);
tare_status check(tare_backend *base, tare_stream stream, tare_error *error);
tare_status balance_gradients(tare_backend *base, const tare_gradient_step *step, tare_stream stream,
                              tare_error *error);
tare_status balance_classes(tare_backend *base, const tare_balance_step *step, tare_stream stream, tare_error *error);
tare_status evaluate_masks(tare_backend *base, const tare_mask_problem *problem, tare_stream stream, tare_error *error);
tare_status scale_gradients(tare_backend *base, const tare_scaling *scaling, tare_stream stream, tare_error *error);
tare_status clear(tare_backend *base, void *data, uint64_t bytes, tare_stream stream, tare_error *error);

/* ---- The fused head (linear.cu): see tare_backend ---------------------------------------------------------------- */

tare_status linear_needs(tare_backend *base, const tare_problem *problem, const tare_linear *linear,
                         tare_linear_needs *needs, tare_error *error);
tare_status linear_evaluate(tare_backend *base, const tare_linear_plan *plan, tare_stream stream, tare_error *error);
tare_status linear_histogram(tare_backend *base, const tare_linear_plan *plan, tare_stream stream, tare_error *error);

}  // namespace tare

#endif
