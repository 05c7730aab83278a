/* SPDX-License-Identifier: Apache-2.0 */
/* The loss of masks on a GPU: the host side. */
#include "masks.cuh"

#include "backend.cuh"

namespace tare {
namespace {

/** Whether 8 elements from any multiple of 8 can be loaded as vectors. Masks begin `stride` elements apart. */
int32_t is_aligned(const void *data, int64_t stride, int64_t masks, int64_t bytes) {
  const int64_t vector_bytes = bytes == 1 ? 8 : 16;
  return reinterpret_cast<uintptr_t>(data) % uintptr_t(vector_bytes) == 0 &&
         (masks < 2 || stride * bytes % vector_bytes == 0);
}

mask_call make_mask_call(const backend *self, const tare_mask_problem *problem) {
  const tare_masks &m = problem->masks;
  const tare_mask_spec &s = problem->spec;
  mask_call c;
  memset(static_cast<void *>(&c), 0, sizeof c);
  c.masks = m;
  c.output = problem->output;
  c.setting = problem->setting;
  c.overlap_weight = s.overlap_weight;
  c.focal_weight = s.focal_weight;
  c.gamma_hi = float(s.gamma);
  c.gamma_lo = float(s.gamma - double(c.gamma_hi));
  c.at_0 = s.alpha < 0 ? 1.0f : float(1 - s.alpha);
  c.at_1 = s.alpha < 0 ? 1.0f : float(s.alpha);
  c.target_least = float(problem->target_least);
  c.target_most = float(problem->target_most);
  c.power = problem->power;
  c.aligned_logits = is_aligned(m.logits, m.logits_stride, m.masks, tare_dtype_bytes(m.dtype));
  c.aligned_targets = is_aligned(m.targets, m.targets_stride, m.masks, tare_mask_target_bytes(m.target_dtype)) &&
                      m.target_dtype != TARE_MASK_TARGET_F64;
  c.aligned_gradient =
      is_aligned(problem->output.gradient, problem->output.gradient_stride, m.masks, tare_dtype_bytes(m.dtype));
  c.chunks = problem->chunks;
  c.totals = problem->totals;
  c.results = problem->results;
  c.partials = problem->partials;
  c.record = self->record;
  return c;
}

}  // namespace

tare_status evaluate_masks(tare_backend *base, const tare_mask_problem *problem, tare_stream stream,
                           tare_error *error) {
  const backend *self = reinterpret_cast<const backend *>(base);
  if (problem->masks.dtype == TARE_DTYPE_F64)
    return tare_fail(error, TARE_STATUS_UNSUPPORTED,
                     "masks->dtype is TARE_DTYPE_F64 on a CUDA context; a GPU takes f32, f16 and bf16; use a CPU "
                     "context");
  const device_guard guard(self);
  if (guard.status != cudaSuccess) return cuda_failed(guard.status, making_current, error);
  const launch_site site = {reinterpret_cast<cudaStream_t>(stream), self->multiprocessors};
  const mask_call c = make_mask_call(self, problem);
  cudaError_t status = cudaSuccess;
  if (c.chunks && c.masks.masks) status = launch_mask_sums(c, site);
  if (status == cudaSuccess) status = launch_finish_masks(c, site);
  if (status == cudaSuccess && problem->has_gradient) status = launch_mask_gradients(c, site);
  return status == cudaSuccess ? TARE_STATUS_OK : cuda_failed(status, "launching the kernels of masks", error);
}

}  // namespace tare
