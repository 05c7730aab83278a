/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The CUDA backend, host side: turns a checked problem into a call by value, and launches. A call puts at most two
 * kernels on the stream: one that counts labels, where the divisor or the counts are wanted, and the loss itself.
 * Nothing is allocated, copied or awaited after a context has been made (context.cu), but by `check`.
 */
#include <cstdio>
#include <cstring>

#include "backend.cuh"
#include "selection.cuh"

extern "C" {
#include "core/flags.h"
}

namespace tare {

tare_status cuda_failed(cudaError_t status, const char *doing, tare_error *error) {
  cudaGetLastError(); /* our own failure: leave none behind */
  return tare_fail(error, TARE_STATUS_CUDA_ERROR, "%s: %s (%s)", doing, cudaGetErrorName(status),
                   cudaGetErrorString(status));
}

cudaError_t is_captured(cudaStream_t stream, bool *captured) {
  cudaStreamCaptureStatus capture = cudaStreamCaptureStatusNone;
  const cudaError_t status = cudaStreamIsCapturing(stream, &capture);
  *captured = status == cudaErrorStreamCaptureImplicit || capture != cudaStreamCaptureStatusNone;
  if (status != cudaErrorStreamCaptureImplicit) return status;
  cudaGetLastError();
  return cudaSuccess;
}

cudaError_t launch_normalizers(const tare_problem *problem, const call &c, const launch_site &site, bool reports) {
  const tare_output &output = problem->output;
  const bool by_level = output.normalizer_scope == TARE_NORMALIZER_SCOPE_LEVEL; /* but the counts are the batch's */
  if (by_level ? !output.counts : !tare_counts_labels(&output)) return cudaSuccess;
  const cudaError_t status = launch_count(c, site, reports);
  if (status != cudaSuccess || by_level || !tare_sums_elements(problem)) return status;
  return launch_target_sums(c, output.normalizer_sums, site);
}

cudaError_t launch_evaluation(const call &c, const launch_site &site) {
  const bool softmax = c.family == TARE_LOSS_FAMILY_SOFTMAX;
  switch (c.dtype) {
    case TARE_DTYPE_F32:
      return softmax ? launch_softmax_f32(c, site) : launch_sigmoid_f32(c, site);
    case TARE_DTYPE_F16:
      return softmax ? launch_softmax_f16(c, site) : launch_sigmoid_f16(c, site);
    case TARE_DTYPE_BF16:
      return softmax ? launch_softmax_bf16(c, site) : launch_sigmoid_bf16(c, site);
    default:
      return cudaErrorInvalidValue;
  }
}

/** The histogram of gradient norms, if it is wanted. */
static cudaError_t count_norms(const backend *self, const tare_problem *problem, const call &evaluation,
                               const launch_site &site) {
  if (!tare_counts_norms(problem)) return cudaSuccess;
  norms_call c;
  tare_loss_spec loss;
  tare_norms_spec(problem, &loss);
  tare_bins_make(&self->bins, &loss);
  make_norms_call(problem, evaluation, self->bins, &c);
  return launch_norms_of(c, site);
}

/* ---- GHM --------------------------------------------------------------------------------------------------------- */

void make_ghm_call(const backend *self, const tare_problem *problem, ghm_call *c) {
  memset(static_cast<void *>(c), 0, sizeof *c);
  make_call(self, problem, c);
  c->ghm = problem->loss.ghm;
  const int64_t elements = block_threads * 16 / tare_dtype_bytes(c->dtype), classes = c->classes > 0 ? c->classes : 1;
  c->rows_of_turn = int32_t(elements / classes);
  c->classes_of_turn = int32_t(elements % classes);
  c->fresh = !c->ghm.state;
  c->state = tare_ghm_state_at(c->fresh ? own_state(self) : c->ghm.state, c->ghm.bins);
  const tare_bins &bins = self->bins;
  tare_bins_make(&self->bins, &problem->loss);
  const size_t count = size_t(bins.count) + 1;
  if (problem->family == TARE_LOSS_FAMILY_REGRESSION) {
    memcpy(c->lower, bins.lower_f64, count * sizeof *c->lower);
  } else {
    memcpy(c->ghm_c.lower, bins.lower_f32, count * sizeof *c->ghm_c.lower);
    memcpy(c->ghm_c.norm, bins.norm_f32, count * sizeof *c->ghm_c.norm);
  }
}

cudaError_t launch_pass(const ghm_call &given, ghm_pass pass, const launch_site &site) {
  ghm_call c = given;
  c.pass = pass;
  switch (c.dtype) {
    case TARE_DTYPE_F32:
      return launch_ghm_f32(c, site);
    case TARE_DTYPE_F16:
      return launch_ghm_f16(c, site);
    case TARE_DTYPE_BF16:
      return launch_ghm_bf16(c, site);
    default:
      return cudaErrorInvalidValue;
  }
}

tare_status refuse_what_is_missing(const tare_problem *problem, tare_error *error) {
  constexpr int64_t most_classes = int64_t(1) << 30; /* kernels step through them with 32 bits */
  if (problem->batch.dtype == TARE_DTYPE_F64)
    return tare_fail(
        error, TARE_STATUS_UNSUPPORTED,
        "batch->dtype is TARE_DTYPE_F64 on a CUDA context; a GPU takes f32, f16 and bf16; use a CPU context for f64");
  if (problem->batch.classes > most_classes)
    return tare_fail(error, TARE_STATUS_UNSUPPORTED,
                     "batch->classes is %lld on a CUDA context; on a GPU it must be at most %lld",
                     (long long)problem->batch.classes, (long long)most_classes);
  return TARE_STATUS_OK;
}

namespace {

tare_status launch_failed(cudaError_t status, tare_error *error) {
  return status == cudaSuccess ? TARE_STATUS_OK : cuda_failed(status, "launching a kernel", error);
}

/** Whether what is read twice is still on the chip the second time, and the blocks of the one launch that does both can
 *  wait for each other. A quarter of the cache is left to the gradient, whose lines are written and not read. */
bool fits_on_chip(const backend *self, const tare_problem *problem, const ghm_call &c) {
  const uint64_t bytes =
      uint64_t(problem->rows) * uint64_t(c.classes) * uint64_t(tare_dtype_bytes(problem->batch.dtype));
  const uint64_t cache = self->l2_bytes > 0 ? uint64_t(self->l2_bytes) : 0;
  if (!self->cooperative || bytes > cache / 4 * 3) return false;
  return c.family == TARE_LOSS_FAMILY_REGRESSION || (!c.soft && c.levels[0].walk != walk_rows);
}

/** The last pass: the density is known. */
cudaError_t evaluate_by_density(const backend *self, const tare_plan &plan, const ghm_call &c,
                                const launch_site &site) {
  const cudaError_t status = sum_classes(plan.problem, c, plan.class_sums, site);
  if (status != cudaSuccess) return status;
  return plan.problem->has_level_scalars ? evaluate_levels(self, plan.problem, c, site)
                                         : launch_pass(c, ghm_pass::evaluate, site);
}

/** Loss and gradient by unit regions that are counted first: in one launch, or in two, between which the classes are
 *  summed. */
cudaError_t evaluate_by_counts(const backend *self, const tare_plan &plan, ghm_call *c, const launch_site &site) {
  c->updates = 1;
  cudaError_t status = cudaErrorCooperativeLaunchTooLarge;
  const bool is_apart = tare_sums_classes(plan.problem) || plan.problem->has_level_scalars;
  if (!is_apart && fits_on_chip(self, plan.problem, *c)) {
    status = launch_pass(*c, ghm_pass::fused, site);
    if (status == cudaErrorCooperativeLaunchTooLarge) cudaGetLastError(); /* somebody holds part of the GPU */
  }
  if (status != cudaErrorCooperativeLaunchTooLarge) return status;
  status = launch_pass(*c, ghm_pass::count, site);
  return status == cudaSuccess ? evaluate_by_density(self, plan, *c, site) : status;
}

/** What the exact density needs at the start of its workspace: space for the sort, and then the number of keys. */
constexpr uint64_t count_bytes = 256;

cudaError_t measure_own_bytes(int64_t keys, uint64_t *bytes) {
  size_t of_sort = 0;
  const cudaError_t status = keys ? sort_keys(nullptr, &of_sort, nullptr, nullptr, keys, nullptr) : cudaSuccess;
  *bytes = (of_sort + 255) / 256 * 256 + count_bytes;
  return status;
}

cudaError_t evaluate_exactly(const backend *self, const tare_plan &plan, ghm_call *c, const launch_site &site) {
  if (!plan.keys) return evaluate_by_density(self, plan, *c, site);
  const size_t sort_bytes = size_t(plan.own_bytes - count_bytes);
  c->key_count = reinterpret_cast<uint64_t *>(static_cast<char *>(plan.own) + sort_bytes);
  c->keys = plan.key;
  c->key_weights = plan.weight;
  cudaError_t status = launch_pass(*c, ghm_pass::collect, site);
  const relaxed_capture relaxed; /* CUB's kernels are loaded when they are first launched, which may be in a capture */
  if (status == cudaSuccess) status = launch_exact_density(*c, plan.spare, plan.own, sort_bytes, plan.keys, site);
  c->keys = plan.spare;
  return status == cudaSuccess ? evaluate_by_density(self, plan, *c, site) : status;
}

cudaError_t evaluate_ghm(const backend *self, const tare_plan &plan, const launch_site &site) {
  ghm_call c;
  make_ghm_call(self, plan.problem, &c);
  const cudaError_t status = launch_normalizers(plan.problem, c, site);
  if (status != cudaSuccess) return status;
  if (plan.density == TARE_DENSITY_SOURCE_KEYS) return evaluate_exactly(self, plan, &c, site);
  if (plan.density == TARE_DENSITY_SOURCE_STATE) return evaluate_by_density(self, plan, c, site);
  return evaluate_by_counts(self, plan, &c, site);
}

}  // namespace

tare_status ghm_histogram(tare_backend *base, const tare_problem *problem, tare_stream stream, tare_error *error) {
  const backend *self = reinterpret_cast<const backend *>(base);
  const tare_status missing = refuse_what_is_missing(problem, error);
  if (missing) return missing;
  const device_guard guard(self);
  if (guard.status != cudaSuccess) return cuda_failed(guard.status, making_current, error);
  ghm_call c;
  make_ghm_call(self, problem, &c);
  const launch_site site = {reinterpret_cast<cudaStream_t>(stream), self->multiprocessors};
  return launch_failed(launch_pass(c, ghm_pass::count, site), error);
}

tare_status ghm_density_update(tare_backend *base, const tare_problem *problem, tare_stream stream, tare_error *error) {
  const backend *self = reinterpret_cast<const backend *>(base);
  const tare_ghm_parameters &ghm = problem->loss.ghm;
  const device_guard guard(self);
  if (guard.status != cudaSuccess) return cuda_failed(guard.status, making_current, error);
  const launch_site site = {reinterpret_cast<cudaStream_t>(stream), self->multiprocessors};
  return launch_failed(launch_density_update(ghm, tare_ghm_state_at(ghm.state, ghm.bins), site), error);
}

/* ---- Without and with a selection -------------------------------------------------------------------------------- */

namespace {

/** Labels are counted first where the divisor or the counts are wanted, and targets summed; then classes are summed;
 *  then the loss. */
cudaError_t evaluate_rows(const backend *self, const tare_problem *problem, const call &c, tare_class_sums *sum_room,
                          const launch_site &site) {
  cudaError_t status = launch_normalizers(problem, c, site);
  if (status == cudaSuccess) status = sum_classes(problem, c, sum_room, site);
  if (status == cudaSuccess) status = count_norms(self, problem, c, site);
  if (status != cudaSuccess) return status;
  return problem->has_level_scalars ? evaluate_levels(self, problem, c, site) : launch_evaluation(c, site);
}

/** Counts, if wanted, by the caller's labels; the row losses; and the labels that follow from them. */
cudaError_t select_rows(const backend *self, const tare_problem *problem, const tare_selection_room &room,
                        const launch_site &site) {
  call c;
  make_call(self, problem, &c);
  const selection_call s = make_selection_call(problem, room);
  cudaError_t status = problem->output.counts ? launch_count(c, site, false) : cudaSuccess;
  if (status == cudaSuccess) status = launch_gather_labels(c, s.background, room.label, site);
  tare_problem measured;
  tare_selection_to_measure(problem, &room, &measured);
  make_call(self, &measured, &c);
  if (status == cudaSuccess) status = launch_evaluation(c, site);
  if (status != cudaSuccess) return status;
  return room.hard ? launch_select_hard_rows(s, site) : launch_select_negatives(s, site);
}

cudaError_t evaluate_selected(const backend *self, const tare_plan &plan, const launch_site &site) {
  const cudaError_t status = select_rows(self, plan.problem, plan.selection, site);
  if (status != cudaSuccess) return status;
  tare_problem selected;
  tare_selection_to_evaluate(plan.problem, &plan.selection, &selected);
  if (plan.selection.hard) selected.all_positives = plan.selection.hard->all_positives;
  call c;
  make_call(self, &selected, &c);
  return evaluate_rows(self, &selected, c, plan.class_sums, site);
}

cudaError_t evaluate_all(const backend *self, const tare_plan &plan, const launch_site &site) {
  call c;
  make_call(self, plan.problem, &c);
  if (plan.evaluates) return evaluate_rows(self, plan.problem, c, plan.class_sums, site);
  const cudaError_t status = launch_normalizers(plan.problem, c, site, true);
  return status == cudaSuccess ? launch_level_normalizers(self, plan.problem, site, false) : status;
}

}  // namespace

/* ---- The verbs --------------------------------------------------------------------------------------------------- */

tare_status needs(tare_backend *base, const tare_problem *problem, uint64_t *own_bytes, tare_error *error) {
  const backend *self = reinterpret_cast<const backend *>(base);
  const tare_status missing = refuse_what_is_missing(problem, error);
  if (missing || tare_density_source(problem) != TARE_DENSITY_SOURCE_KEYS) return missing;
  const device_guard guard(self);
  if (guard.status != cudaSuccess) return cuda_failed(guard.status, making_current, error);
  const cudaError_t status = measure_own_bytes(problem->rows * problem->batch.classes, own_bytes);
  return status == cudaSuccess ? TARE_STATUS_OK : cuda_failed(status, "asking for the sort's workspace", error);
}

tare_status evaluate(tare_backend *base, const tare_plan *plan, tare_stream stream, tare_error *error) {
  const backend *self = reinterpret_cast<const backend *>(base);
  const device_guard guard(self);
  if (guard.status != cudaSuccess) return cuda_failed(guard.status, making_current, error);
  const launch_site site = {reinterpret_cast<cudaStream_t>(stream), self->multiprocessors};
  const cudaError_t status = plan->density != TARE_DENSITY_SOURCE_NONE ? evaluate_ghm(self, *plan, site)
                             : plan->selects                           ? evaluate_selected(self, *plan, site)
                                                                       : evaluate_all(self, *plan, site);
  const tare_output &output = plan->problem->output;
  if (status != cudaSuccess || !tare_has_flags(&output)) return launch_failed(status, error);
  call c;
  make_call(self, plan->problem, &c);
  return launch_failed(launch_flags(c, output.nonfinite_gradient, output.nonfinite_loss, site), error);
}

tare_status label_counts(tare_backend *base, const tare_problem *problem, tare_counts *counts, int64_t *per_class,
                         tare_stream stream, tare_error *error) {
  const backend *self = reinterpret_cast<const backend *>(base);
  const device_guard guard(self);
  if (guard.status != cudaSuccess) return cuda_failed(guard.status, making_current, error);
  call c;
  make_call(self, problem, &c);
  c.counts = counts;
  c.per_class = per_class;
  const launch_site site = {reinterpret_cast<cudaStream_t>(stream), self->multiprocessors};
  cudaError_t status = cudaSuccess;
  if (per_class) status = cudaMemsetAsync(per_class, 0, size_t(c.classes) * sizeof *per_class, site.stream);
  if (status != cudaSuccess) return cuda_failed(status, "clearing per_class", error);
  status = launch_count(c, site, true);
  return status == cudaSuccess ? TARE_STATUS_OK : cuda_failed(status, "launching the label kernel", error);
}

/** Takes the numbers of invalid rows and the first of them, by label and by target as they lie there, out of the
 *  record, when the stream's work is done. */
cudaError_t take_invalid(device_record *record, cudaStream_t stream, uint64_t (&seen)[4]) {
  static const uint64_t none[4] = {0, ~uint64_t(0), 0, ~uint64_t(0)};
  cudaError_t status = cudaMemcpyAsync(seen, record, sizeof seen, cudaMemcpyDeviceToHost, stream);
  if (status == cudaSuccess) status = cudaStreamSynchronize(stream);
  const bool any = seen[0] || seen[2];
  if (status == cudaSuccess && any) status = cudaMemcpyAsync(record, none, sizeof none, cudaMemcpyHostToDevice, stream);
  if (status == cudaSuccess && any) status = cudaStreamSynchronize(stream);
  return status;
}

tare_status refuse_rows(const uint64_t (&seen)[4], tare_error *error) {
  char targets[200] = "";
  if (seen[2])
    snprintf(targets, sizeof targets,
             "%starget or score of row %llu is NaN or out of range (%llu such rows since the last check)",
             seen[0] ? "; " : "", (unsigned long long)seen[3], (unsigned long long)seen[2]);
  if (!seen[0])
    return tare_fail(error, TARE_STATUS_INVALID_TARGET, "%s; such rows added nothing and their gradient is 0", targets);
  return tare_fail(error, TARE_STATUS_INVALID_LABEL,
                   "label of row %llu is neither a class, nor background, nor ignore, or the loss excludes its class "
                   "(%llu such rows since the last check)%s; such rows added nothing",
                   (unsigned long long)seen[1], (unsigned long long)seen[0], targets);
}

tare_status check(tare_backend *base, tare_stream stream, tare_error *error) {
  const backend *self = reinterpret_cast<const backend *>(base);
  const device_guard guard(self);
  if (guard.status != cudaSuccess) return cuda_failed(guard.status, making_current, error);
  const relaxed_capture relaxed; /* another stream of this thread may be captured */
  const cudaStream_t s = reinterpret_cast<cudaStream_t>(stream);
  bool captured;
  const cudaError_t asked = is_captured(s, &captured);
  if (asked != cudaSuccess) return cuda_failed(asked, "cudaStreamIsCapturing", error);
  if (captured)
    return tare_fail(error, TARE_STATUS_CAPTURING,
                     "the stream is being captured, so it cannot be waited for; call this after the graph has run");
  uint64_t seen[4] = {0, 0, 0, 0};
  const cudaError_t status = take_invalid(self->record, s, seen);
  if (status != cudaSuccess) return cuda_failed(status, "waiting for the stream", error);
  return seen[0] || seen[2] ? refuse_rows(seen, error) : TARE_STATUS_OK;
}

tare_status balance_classes(tare_backend *base, const tare_balance_step *step, tare_stream stream, tare_error *error) {
  const backend *self = reinterpret_cast<const backend *>(base);
  const device_guard guard(self);
  if (guard.status != cudaSuccess) return cuda_failed(guard.status, making_current, error);
  const launch_site site = {reinterpret_cast<cudaStream_t>(stream), self->multiprocessors};
  return launch_failed(launch_balance_classes(*step, site), error);
}

tare_status balance_gradients(tare_backend *base, const tare_gradient_step *step, tare_stream stream,
                              tare_error *error) {
  const device_guard guard(reinterpret_cast<const backend *>(base));
  if (guard.status != cudaSuccess) return cuda_failed(guard.status, making_current, error);
  const launch_site site = {reinterpret_cast<cudaStream_t>(stream), 1};
  return launch_failed(launch_balance_gradients(*step, site), error);
}

tare_status scale_gradients(tare_backend *base, const tare_scaling *scaling, tare_stream stream, tare_error *error) {
  const backend *self = reinterpret_cast<const backend *>(base);
  if (scaling->dtype == TARE_DTYPE_F64)
    return tare_fail(error, TARE_STATUS_UNSUPPORTED,
                     "dtype is TARE_DTYPE_F64 on a CUDA context; a GPU takes f32, f16 and bf16; use a CPU context");
  const device_guard guard(self);
  if (guard.status != cudaSuccess) return cuda_failed(guard.status, making_current, error);
  const launch_site site = {reinterpret_cast<cudaStream_t>(stream), self->multiprocessors};
  return launch_failed(launch_scale_gradients(*scaling, site), error);
}

tare_status clear(tare_backend *base, void *data, uint64_t bytes, tare_stream stream, tare_error *error) {
  const device_guard guard(reinterpret_cast<const backend *>(base));
  if (guard.status != cudaSuccess) return cuda_failed(guard.status, making_current, error);
  const cudaError_t status = cudaMemsetAsync(data, 0, size_t(bytes), reinterpret_cast<cudaStream_t>(stream));
  return status == cudaSuccess ? TARE_STATUS_OK : cuda_failed(status, "clearing gradients", error);
}

}  // namespace tare
