/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The steps of the fused head on a GPU; core/linear_chunks.h has their order. A chunk is so small that its logits only
 * ever exist in L2.
 *
 * A chunk's logits are a product of cuBLAS in f32, an ordinary flat batch for the loss kernels, which put the gradient
 * in their place. All work is put on the caller's stream. cuBLAS is row-major's mirror image: it sees every array
 * transposed, and all its leading dimensions are our row strides.
 */
#include <algorithm>
#include <cstring>

#include "backend.cuh"
#include "linear.cuh"

extern "C" {
#include "core/linear_chunks.h"
}

namespace tare {

namespace {

/** An array as cuBLAS sees it: its rows are columns. */
struct matrix {
  const void *data;
  cudaDataType type;
  int64_t stride;
  blas_operation how;
};

/** A call at work. */
struct head {
  backend *self;
  const tare_linear_plan *plan;
  tare_error *error;
  launch_site site;
  cudaDataType type; /* of X and W */
  const blas_table *blas;
  blas_handle *handle;
  const float *one, *zero, *unscale; /* in host memory; in the record where the last is only known there */
  call *c;                           /* the loss kernels' */
  ghm_call *ghm;                     /* the same, or NULL */
  matrix gradient;                   /* by the chunk's logits, as the products take it */
};

int32_t classes_of(const head &h) { return int32_t(h.plan->problem->batch.classes); }

template <typename T>
T *part(const head &h, tare_part which) {
  return static_cast<T *>(h.plan->part[which]);
}

tare_status blas_failed(const head &h, blas_status status, const char *doing) {
  return tare_fail(h.error, TARE_STATUS_CUDA_ERROR, "cuBLAS, %s: %s", doing, h.blas->GetStatusName(status));
}

tare_status launch_failed(const head &h, cudaError_t status) {
  return status == cudaSuccess ? TARE_STATUS_OK : cuda_failed(status, "launching a kernel of the fused head", h.error);
}

/* ---- What a call needs ------------------------------------------------------------------------------------------- */

constexpr uint64_t least_blas_bytes = 64 << 10; /* below 16 KiB some products of cuBLAS fail */

/** The workspace that NVIDIA recommends for cuBLAS. With less, products with a small result cannot be split. */
uint64_t ample_blas_bytes(const backend *self) { return self->major >= 9 ? 32 << 20 : 4 << 20; }

/** The gradient by the logits is rounded to the features' type. */
bool narrows(const tare_linear *linear) { return linear->dtype != TARE_DTYPE_F32 && tare_linear_has_products(linear); }

int64_t narrowed_stride(int64_t classes) { return (classes + 7) / 8 * 8; }

/** Rows whose logits take half of L2; the other half is for what passes by. */
int64_t ample_rows(const backend *self, int64_t classes) {
  const int64_t fit = self->l2_bytes / 2 / 4 / classes / strip_rows * strip_rows;
  const int64_t most = (int64_t(1) << 30) / classes / strip_rows * strip_rows; /* elements by 32 bits */
  return std::max(std::min(fit, most), strip_rows);
}

/** A handle from a call before. Making one allocates, which cuBLAS is not known to survive in a capture. */
tare_status start_blas(head *h) {
  const tare_status status = load_blas(&h->blas, h->error);
  if (status) return status;
  h->handle = borrow_blas_handle(h->self->primary);
  if (h->handle) return TARE_STATUS_OK;
  bool captured;
  const cudaError_t asked = is_captured(h->site.stream, &captured);
  if (asked != cudaSuccess) return cuda_failed(asked, "cudaStreamIsCapturing", h->error);
  if (captured)
    return tare_fail(
        h->error, TARE_STATUS_CAPTURING,
        "a stream is being captured, and cuBLAS cannot be started during a capture: call tare_linear_evaluate "
        "once before the capture, on this GPU");
  const relaxed_capture relaxed; /* leaves captures of other threads alone */
  h->handle = make_blas_handle(h->blas, h->self->primary, h->error);
  return h->handle ? TARE_STATUS_OK : TARE_STATUS_CUDA_ERROR;
}

/** f16 gradients are scaled by what only the device knows, and cuBLAS takes all its scalars from one side. */
tare_status set_scalars(head *h) {
  static const float host_one = 1, host_zero = 0;
  const bool on_device = h->plan->linear->dtype == TARE_DTYPE_F16 && narrows(h->plan->linear);
  device_record *const record = h->self->record;
  h->one = on_device ? &record->one : &host_one;
  h->zero = on_device ? &record->zero : &host_zero;
  h->unscale = on_device ? &record->unscale : &host_one;
  const blas_status status =
      h->blas->SetPointerMode(h->handle->of_cublas, on_device ? blas_device_scalars : blas_host_scalars);
  return status == blas_success ? TARE_STATUS_OK : blas_failed(*h, status, "setting the pointer mode");
}

tare_status start(head *h) {
  const tare_status started = start_blas(h);
  if (started) return started;
  const int32_t dtype = h->plan->linear->dtype;
  h->type = dtype == TARE_DTYPE_F16 ? CUDA_R_16F : dtype == TARE_DTYPE_BF16 ? CUDA_R_16BF : CUDA_R_32F;
  /* A stream brings its own workspace with it; ours comes after. */
  blas_status status = h->blas->SetStream(h->handle->of_cublas, h->site.stream);
  if (status == blas_success)
    status = h->blas->SetWorkspace(h->handle->of_cublas, h->plan->part[TARE_PART_BLAS], size_t(h->plan->blas_bytes));
  if (status != blas_success) return blas_failed(*h, status, "setting stream and workspace");
  return set_scalars(h);
}

/* ---- Products ---------------------------------------------------------------------------------------------------- */

/** to [n, m] = alpha*b*a + beta*to, where a is [k, m] and b [n, k] after their `how`. Many parameters: those of
 *  GEMM. */
tare_status multiply(const head &h, int64_t m, int64_t n, int64_t k, const float *alpha, const matrix &a,
                     const matrix &b, const float *beta, const matrix &to, const char *doing) {
  const blas_status status =
      h.blas->GemmEx(h.handle->of_cublas, a.how, b.how, int(m), int(n), int(k), alpha, a.data, a.type, int(a.stride),
                     b.data, b.type, int(b.stride), beta, const_cast<void *>(to.data), to.type, int(to.stride),
                     blas_compute_f32, blas_default_algorithm);
  return status == blas_success ? TARE_STATUS_OK : blas_failed(h, status, doing);
}

const void *row_of(const void *data, int32_t dtype, int64_t stride, int64_t row) {
  return static_cast<const char *>(data) + row * stride * tare_dtype_bytes(dtype);
}

matrix features_at(const head &h, const tare_linear_chunk &k) {
  const tare_linear &l = *h.plan->linear;
  return {row_of(l.features, l.dtype, l.features_stride, k.first), h.type, l.features_stride, blas_as_it_is};
}

tare_status form_logits(void *argument, const tare_linear_chunk *k) {
  const head &h = *static_cast<head *>(argument);
  const tare_linear &l = *h.plan->linear;
  const int32_t classes = classes_of(h);
  tare_status status = TARE_STATUS_OK;
  if (l.bias) status = launch_failed(h, launch_broadcast_bias(l.bias, l.dtype, k->logits, k->rows, classes, h.site));
  if (status) return status;
  return multiply(h, classes, k->rows, l.dimensions, h.one, {l.weights, h.type, l.dimensions, blas_transposed},
                  features_at(h, *k), l.bias ? h.one : h.zero, {k->logits, CUDA_R_32F, classes, blas_as_it_is},
                  "the product for the logits");
}

/** Adds to the gradient by b. The products take the gradient by the logits in the features' type. */
tare_status fold_gradient(void *argument, const tare_linear_chunk *k) {
  head *const h = static_cast<head *>(argument);
  chunk_gradient g;
  memset(static_cast<void *>(&g), 0, sizeof g);
  g.logits_gradient = k->logits;
  g.rows = k->rows;
  g.classes = classes_of(*h);
  g.follows = k->follows;
  g.sums = part<double>(*h, TARE_PART_BIAS_SUMS);
  g.narrowed = h->plan->part[TARE_PART_NARROWED];
  g.narrowed_stride = narrowed_stride(g.classes);
  g.record = h->self->record;
  h->gradient = g.narrowed ? matrix{g.narrowed, h->type, g.narrowed_stride, blas_as_it_is}
                           : matrix{g.logits_gradient, CUDA_R_32F, g.classes, blas_as_it_is};
  return g.sums || g.narrowed ? launch_failed(*h, launch_reduce_columns(g, h->plan->linear->dtype, h->site))
                              : TARE_STATUS_OK;
}

/** A gradient by W that is added to another and has its scale on the device is first formed elsewhere. */
float *weights_gradient_apart(const head &h) {
  const bool is_apart = h.plan->linear->accumulate && h.plan->problem->output.gradient_scale_pointer;
  return is_apart ? part<float>(h, TARE_PART_APART) : h.plan->linear->weights_gradient;
}

tare_status add_weights_gradient(void *argument, const tare_linear_chunk *k) {
  const head &h = *static_cast<head *>(argument);
  const tare_linear &l = *h.plan->linear;
  float *const to = weights_gradient_apart(h);
  const bool adds = k->follows || (l.accumulate && to == l.weights_gradient);
  matrix transposed = h.gradient;
  transposed.how = blas_transposed;
  return multiply(h, l.dimensions, classes_of(h), k->rows, h.unscale, features_at(h, *k), transposed,
                  adds ? h.one : h.zero, {to, CUDA_R_32F, l.dimensions, blas_as_it_is}, "the product for W's gradient");
}

tare_status write_features_gradient(void *argument, const tare_linear_chunk *k) {
  const head &h = *static_cast<head *>(argument);
  const tare_linear &l = *h.plan->linear;
  const matrix to = {row_of(l.features_gradient, l.dtype, l.features_gradient_stride, k->first), h.type,
                     l.features_gradient_stride, blas_as_it_is};
  return multiply(h, l.dimensions, k->rows, classes_of(h), h.unscale, {l.weights, h.type, l.dimensions, blas_as_it_is},
                  h.gradient, h.zero, to, "the product for X's gradient");
}

/** A scale of the device's that is not finite is applied to the products; in them it would meet zeros. */
tare_status finish_products(const head &h, const late_scale &scale) {
  const tare_linear &l = *h.plan->linear;
  if (!scale.device) return TARE_STATUS_OK;
  const int64_t classes = classes_of(h);
  float *const weights = weights_gradient_apart(h);
  cudaError_t status = cudaSuccess;
  if (l.weights_gradient && weights != l.weights_gradient)
    status = launch_add_late_scaled(scale, weights, l.weights_gradient, classes * l.dimensions, h.site);
  else if (l.weights_gradient)
    status = launch_apply_late_scale(scale, TARE_DTYPE_F32, weights, classes, l.dimensions, l.dimensions, h.site);
  if (status == cudaSuccess && l.features_gradient)
    status = launch_apply_late_scale(scale, l.dtype, l.features_gradient, h.plan->problem->rows, l.dimensions,
                                     l.features_gradient_stride, h.site);
  return launch_failed(h, status);
}

tare_status finish(void *argument) {
  const head &h = *static_cast<head *>(argument);
  const tare_output &output = h.plan->problem->output;
  const tare_linear &l = *h.plan->linear;
  const late_scale scale = {output.gradient_scale, output.gradient_scale_pointer};
  const tare_status status = finish_products(h, scale);
  if (status || !l.bias_gradient) return status;
  return launch_failed(h, launch_reduce_strips(part<double>(h, TARE_PART_BIAS_SUMS), strips_of(h.plan->chunk_rows),
                                               classes_of(h), l.accumulate != 0, l.bias_gradient, scale, h.site));
}

/* ---- Passes ------------------------------------------------------------------------------------------------------ */

tare_status count_labels(void *argument) {
  const head &h = *static_cast<head *>(argument);
  return launch_failed(h, launch_normalizers(h.plan->problem, *h.c, h.site));
}

void fill_chunk(const head &h, const tare_linear_chunk &k) {
  fill_levels(&k.problem, h.c);
  h.c->follows = k.follows;
  h.c->goes_on = k.goes_on;
}

tare_status measure(void *argument, const tare_linear_chunk *k) {
  const head &h = *static_cast<head *>(argument);
  fill_chunk(h, *k);
  return launch_failed(h, launch_pass(*h.ghm, ghm_pass::count, h.site));
}

/** The last launch that counts leaves the density in the state. */
tare_status settle(void *) { return TARE_STATUS_OK; }

tare_status evaluate_chunk(void *argument, const tare_linear_chunk *k) {
  const head &h = *static_cast<head *>(argument);
  fill_chunk(h, *k);
  h.c->scale_follows = 1;
  auto *const room = part<tare_class_sums>(h, TARE_PART_CLASS_SUMS);
  cudaError_t status =
      h.ghm ? sum_classes(&k->problem, *h.ghm, room, h.site) : sum_classes(&k->problem, *h.c, room, h.site);
  if (status == cudaSuccess)
    status = h.ghm ? launch_pass(*h.ghm, ghm_pass::evaluate, h.site) : launch_evaluation(*h.c, h.site);
  return launch_failed(h, status);
}

const tare_linear_steps steps = {count_labels,
                                 form_logits,
                                 measure,
                                 settle,
                                 evaluate_chunk,
                                 fold_gradient,
                                 add_weights_gradient,
                                 write_features_gradient,
                                 finish};

using loop = tare_status(const tare_linear_plan *, const tare_linear_steps *, void *);

/** A call that stops half-way takes its counts out of the record, where the next one would find them. */
tare_status run_ghm(head *h, loop *run) {
  ghm_call c;
  make_ghm_call(h->self, h->plan->problem, &c);
  c.updates = h->plan->measures;
  h->c = h->ghm = &c;
  const tare_status status = run(h->plan, &steps, h);
  device_record *record = h->self->record;
  if (status && cudaMemsetAsync(record->histogram, 0, sizeof record->histogram, h->site.stream) != cudaSuccess)
    cudaGetLastError(); /* of the two failures the first is told */
  return status;
}

tare_status run_other(head *h, loop *run) {
  call c;
  make_call(h->self, h->plan->problem, &c);
  h->c = &c;
  return run(h->plan, &steps, h);
}

tare_status run_head(tare_backend *base, const tare_linear_plan *plan, tare_stream stream, loop *run,
                     tare_error *error) {
  head h = {};
  h.self = reinterpret_cast<backend *>(base);
  h.plan = plan;
  h.error = error;
  h.site = {reinterpret_cast<cudaStream_t>(stream), h.self->multiprocessors};
  const device_guard guard(h.self);
  if (guard.status != cudaSuccess) return cuda_failed(guard.status, making_current, error);
  tare_status status = start(&h);
  if (!status) status = tare_is_ghm(plan->problem) ? run_ghm(&h, run) : run_other(&h, run);
  if (h.handle) return_blas_handle(h.handle);
  return status;
}

}  // namespace

/* ---- The verbs --------------------------------------------------------------------------------------------------- */

tare_status linear_needs(tare_backend *base, const tare_problem *problem, const tare_linear *linear,
                         tare_linear_needs *needs, tare_error *error) {
  const backend *self = reinterpret_cast<const backend *>(base);
  const tare_status missing = refuse_what_is_missing(problem, error);
  if (missing) return missing;
  const int64_t classes = problem->batch.classes;
  needs->step_rows = strip_rows;
  needs->ample_rows = ample_rows(self, classes);
  needs->alignment = 256;
  needs->aligns_first = 1;
  needs->ample_blas = ample_blas_bytes(self);
  needs->size[TARE_PART_BLAS].fixed = least_blas_bytes;
  needs->size[TARE_PART_APART].fixed = tare_linear_apart_bytes(problem, linear);
  if (linear->bias_gradient) needs->size[TARE_PART_BIAS_SUMS].of_step = uint64_t(classes) * sizeof(double);
  if (narrows(linear)) needs->size[TARE_PART_NARROWED].of_row = uint64_t(narrowed_stride(classes)) * 2;
  return TARE_STATUS_OK;
}

tare_status linear_evaluate(tare_backend *base, const tare_linear_plan *plan, tare_stream stream, tare_error *error) {
  return run_head(base, plan, stream, tare_linear_evaluate_chunks, error);
}

tare_status linear_histogram(tare_backend *base, const tare_linear_plan *plan, tare_stream stream, tare_error *error) {
  return run_head(base, plan, stream, tare_linear_measure_chunks, error);
}

}  // namespace tare
