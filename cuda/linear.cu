/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The fused head: classifier and loss, a chunk of rows at a time, so that the logits only ever exist in L2.
 *
 * A chunk's logits are a product of cuBLAS in f32, an ordinary flat batch for the loss kernels, which put the gradient in
 * their place; two more products make W's gradient (the first chunk writes, the others add) and X's, in this order, since
 * X's gradient may overwrite X. All of it is put on the caller's stream. cuBLAS is row-major's mirror image: it sees every
 * array transposed, and all its leading dimensions are our row strides.
 */
#include <algorithm>
#include <cstring>

#include "linear_room.cuh"

namespace tare {

namespace {

/* ---- A head at work -------------------------------------------------------------------------------------------------- */

struct head {
  backend *self;
  const tare_problem *problem;
  const tare_linear *linear;
  tare_error *error;
  launch_site site;
  room lies;
  char *base;
  cudaDataType type; /* of X and W */
  const blas_table *blas;
  blas_handle *handle;
  const float *one, *zero, *unscale; /* in host memory; in the record where the last is only known there */
  int64_t standing;                  /* the first row of the chunk whose logits are there; -1: none */
};

/** Ends a call: gives cuBLAS's handle back. */
struct head_guard {
  explicit head_guard(head *of) : h(of) {}
  ~head_guard() {
    if (h->handle) return_blas_handle(h->handle);
  }
  head_guard(const head_guard &) = delete;
  head_guard &operator=(const head_guard &) = delete;
  head *h;
};

struct chunk {
  int64_t first, rows;
  bool is_last;
};

int32_t classes_of(const head &h) { return int32_t(h.problem->batch.classes); }
float *logits_of(const head &h) { return reinterpret_cast<float *>(h.base + h.lies.logits); }

tare_status blas_failed(const head &h, blas_status status, const char *doing) {
  return tare_fail(h.error, TARE_STATUS_CUDA_ERROR, "cuBLAS, %s: %s", doing, h.blas->GetStatusName(status));
}

tare_status launch_failed(const head &h, cudaError_t status) {
  return status == cudaSuccess ? TARE_STATUS_OK : cuda_failed(status, "launching a kernel of the fused head", h.error);
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
  const bool on_device = h->linear->dtype == TARE_DTYPE_F16 && narrows(h->linear);
  device_record *const record = h->self->record;
  h->one = on_device ? &record->one : &host_one;
  h->zero = on_device ? &record->zero : &host_zero;
  h->unscale = on_device ? &record->unscale : &host_one;
  const blas_status status =
      h->blas->SetPointerMode(h->handle->of_cublas, on_device ? blas_device_scalars : blas_host_scalars);
  return status == blas_success ? TARE_STATUS_OK : blas_failed(*h, status, "setting the pointer mode");
}

tare_status start(head *h, void *workspace, uint64_t bytes) {
  const tare_status missing = refuse_what_is_missing(h->problem, h->error);
  if (missing) return missing;
  const room least = least_room(h->problem, h->linear);
  if (bytes < least.bytes)
    return tare_fail(h->error, TARE_STATUS_WORKSPACE_TOO_SMALL,
                     "workspace has %llu bytes; this call needs %llu: see tare_linear_workspace_size and "
                     "tare_context_set_workspace",
                     (unsigned long long)bytes, (unsigned long long)least.bytes);
  const tare_status started = start_blas(h);
  if (started) return started;
  h->lies = fitting_room(h->self, h->problem, h->linear, bytes);
  h->base = reinterpret_cast<char *>((reinterpret_cast<uintptr_t>(workspace) + 255) / 256 * 256);
  h->type = h->linear->dtype == TARE_DTYPE_F16    ? CUDA_R_16F
            : h->linear->dtype == TARE_DTYPE_BF16 ? CUDA_R_16BF
                                                  : CUDA_R_32F;
  h->standing = -1;
  /* A stream brings its own workspace with it; ours comes after. */
  blas_status status = h->blas->SetStream(h->handle->of_cublas, h->site.stream);
  if (status == blas_success) status = h->blas->SetWorkspace(h->handle->of_cublas, h->base, size_t(h->lies.blas_bytes));
  if (status != blas_success) return blas_failed(*h, status, "setting stream and workspace");
  return set_scalars(h);
}

chunk first_chunk(const head &h) { return {0, std::min(h.lies.rows, h.problem->rows), h.lies.rows >= h.problem->rows}; }

chunk chunk_after(const head &h, const chunk &before) {
  const int64_t first = before.first + before.rows;
  return {first, std::min(h.lies.rows, h.problem->rows - first), first + h.lies.rows >= h.problem->rows};
}

/** Calls `work(chunk)` for one chunk after the other. */
template <typename Work>
tare_status for_each_chunk(const head &h, Work &&work) {
  chunk k = first_chunk(h);
  tare_status status = work(k);
  while (!status && !k.is_last) {
    k = chunk_after(h, k);
    status = work(k);
  }
  return status;
}

/* ---- Products -------------------------------------------------------------------------------------------------------- */

/** An array as cuBLAS sees it: its rows are columns. */
struct matrix {
  const void *data;
  cudaDataType type;
  int64_t stride;
  blas_operation how;
};

/** to [n, m] = alpha*b*a + beta*to, where a is [k, m] and b [n, k] after their `how`. */
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

matrix features_at(const head &h, const chunk &k) {
  const tare_linear &l = *h.linear;
  return {row_of(l.features, l.dtype, l.features_stride, k.first), h.type, l.features_stride, blas_as_it_is};
}

tare_status make_logits(head *h, const chunk &k) {
  if (h->standing == k.first) return TARE_STATUS_OK;
  const tare_linear &l = *h->linear;
  const int32_t classes = classes_of(*h);
  tare_status status = TARE_STATUS_OK;
  if (l.bias) status = launch_failed(*h, launch_spread_bias(l.bias, l.dtype, logits_of(*h), k.rows, classes, h->site));
  if (status) return status;
  h->standing = k.first;
  return multiply(*h, classes, k.rows, l.dimensions, h->one, {l.weights, h->type, l.dimensions, blas_transposed},
                  features_at(*h, k), l.bias ? h->one : h->zero, {logits_of(*h), CUDA_R_32F, classes, blas_as_it_is},
                  "the product for the logits");
}

/** What the products take: the gradient by the logits, in the features' type. */
tare_status fold_gradient(const head &h, const chunk &k, matrix *gradient) {
  chunk_gradient g;
  memset(static_cast<void *>(&g), 0, sizeof g);
  g.logits_gradient = logits_of(h);
  g.rows = k.rows;
  g.classes = classes_of(h);
  g.follows = k.first > 0;
  if (h.linear->bias_gradient) g.sums = reinterpret_cast<double *>(h.base + h.lies.sums);
  if (narrows(h.linear)) g.narrowed = h.base + h.lies.narrowed;
  g.narrowed_stride = round_up(g.classes, 8);
  g.record = h.self->record;
  *gradient = g.narrowed ? matrix{g.narrowed, h.type, g.narrowed_stride, blas_as_it_is}
                         : matrix{g.logits_gradient, CUDA_R_32F, g.classes, blas_as_it_is};
  return g.sums || g.narrowed ? launch_failed(h, launch_fold(g, h.linear->dtype, h.site)) : TARE_STATUS_OK;
}

late_scale scale_of(const head &h) {
  return {h.problem->output.gradient_scale, h.problem->output.gradient_scale_pointer};
}

tare_status finish_bias(const head &h) {
  if (!h.linear->bias_gradient) return TARE_STATUS_OK;
  return launch_failed(
      h, launch_finish_sums(reinterpret_cast<const double *>(h.base + h.lies.sums), strips_of(h.lies.rows),
                            classes_of(h), h.linear->accumulate != 0, h.linear->bias_gradient, scale_of(h), h.site));
}

/** W's gradient of this call where it has to be known by itself before it is added. */
float *weights_gradient_apart(const head &h) {
  const bool is_apart = h.linear->accumulate && h.problem->output.gradient_scale_pointer;
  return is_apart ? reinterpret_cast<float *>(h.base + h.lies.apart) : h.linear->weights_gradient;
}

/** A scale of the device's that is not finite is applied to the products; in them it would meet zeros. */
tare_status finish_products(const head &h) {
  const tare_linear &l = *h.linear;
  const late_scale scale = scale_of(h);
  if (!scale.device) return TARE_STATUS_OK;
  const int64_t classes = h.problem->batch.classes;
  float *const weights = weights_gradient_apart(h);
  cudaError_t status = cudaSuccess;
  if (l.weights_gradient && weights != l.weights_gradient)
    status = launch_add_apart(scale, weights, l.weights_gradient, classes * l.dimensions, h.site);
  else if (l.weights_gradient)
    status = launch_carry_scale(scale, TARE_DTYPE_F32, weights, classes, l.dimensions, l.dimensions, h.site);
  if (status == cudaSuccess && l.features_gradient)
    status = launch_carry_scale(scale, l.dtype, l.features_gradient, h.problem->rows, l.dimensions,
                                l.features_gradient_stride, h.site);
  return launch_failed(h, status);
}

/** From the gradient by a chunk's logits those by W, b and X. */
tare_status spread_gradient(head *h, const chunk &k) {
  const tare_linear &l = *h->linear;
  const int32_t classes = classes_of(*h);
  h->standing = -1;
  matrix gradient;
  tare_status status = fold_gradient(*h, k, &gradient);
  if (!status && l.weights_gradient) {
    matrix transposed = gradient;
    transposed.how = blas_transposed;
    float *const to = weights_gradient_apart(*h);
    const bool adds = k.first > 0 || (l.accumulate && to == l.weights_gradient);
    status =
        multiply(*h, l.dimensions, classes, k.rows, h->unscale, features_at(*h, k), transposed, adds ? h->one : h->zero,
                 {to, CUDA_R_32F, l.dimensions, blas_as_it_is}, "the product for W's gradient");
  }
  if (status || !l.features_gradient) return status;
  const matrix to = {row_of(l.features_gradient, l.dtype, l.features_gradient_stride, k.first), h->type,
                     l.features_gradient_stride, blas_as_it_is};
  return multiply(*h, l.dimensions, k.rows, classes, h->unscale, {l.weights, h->type, l.dimensions, blas_as_it_is},
                  gradient, h->zero, to, "the product for X's gradient");
}

/* ---- Passes ---------------------------------------------------------------------------------------------------------- */

void cut_chunk(const head &h, const chunk &k, bool with_gradient, call *c) {
  tare_problem slice;
  tare_problem_slice(&slice, h.problem, k.first, k.rows, logits_of(h), with_gradient ? logits_of(h) : nullptr);
  fill_levels(&slice, c);
  c->follows = k.first > 0;
  c->goes_on = !k.is_last;
}

cudaError_t launch_chunk(const call &c, const launch_site &site) { return launch_evaluation(c, site); }
cudaError_t launch_chunk(const ghm_call &c, const launch_site &site) {
  return launch_pass(c, ghm_pass::evaluate, site);
}

/** The pass that evaluates. */
template <typename Call>
tare_status evaluate_chunks(head *h, Call *c) {
  const bool with_gradient = wants_gradient(h->linear);
  c->scale_follows = 1;
  const tare_status status = for_each_chunk(*h, [&](const chunk &k) {
    const tare_status made = make_logits(h, k);
    if (made) return made;
    cut_chunk(*h, k, with_gradient, c);
    const tare_status launched = launch_failed(*h, launch_chunk(*c, h->site));
    return launched || !with_gradient ? launched : spread_gradient(h, k);
  });
  const tare_status finished = status ? status : finish_products(*h);
  return finished ? finished : finish_bias(*h);
}

/** The pass of a GHM loss before: N, the histogram and, if `c.updates`, the density into the state. If it stops half-way
 *  the counts so far are taken out of the record, where the next call would find them. */
tare_status count_norms(head *h, ghm_call *c) {
  const tare_status status = for_each_chunk(*h, [&](const chunk &k) {
    const tare_status made = make_logits(h, k);
    if (made) return made;
    cut_chunk(*h, k, false, c);
    return launch_failed(*h, launch_pass(*c, ghm_pass::count, h->site));
  });
  device_record *record = h->self->record;
  if (status && cudaMemsetAsync(record->histogram, 0, sizeof record->histogram, h->site.stream) != cudaSuccess)
    cudaGetLastError(); /* of the two failures the first is told */
  return status;
}

tare_status evaluate_ghm(head *h) {
  ghm_call c;
  make_ghm_call(h->self, h->problem, &c);
  tare_status status = TARE_STATUS_OK;
  if (h->problem->output.counts) status = launch_failed(*h, launch_count(c, h->site, false));
  c.updates = !c.ghm.use_stored_density;
  if (!status && c.updates) status = count_norms(h, &c);
  return status ? status : evaluate_chunks(h, &c);
}

tare_status evaluate_other(head *h) {
  const tare_output &output = h->problem->output;
  call c;
  make_call(h->self, h->problem, &c);
  tare_status status = TARE_STATUS_OK;
  if (counts_divisor(output) || output.counts) status = launch_failed(*h, launch_count(c, h->site, false));
  return status ? status : evaluate_chunks(h, &c);
}

/** Without rows there is nothing to multiply. */
tare_status clear_gradients(const tare_problem *problem, const tare_linear *linear, cudaStream_t stream,
                            tare_error *error) {
  const size_t classes = size_t(problem->batch.classes);
  cudaError_t status = cudaSuccess;
  if (linear->weights_gradient && !linear->accumulate)
    status = cudaMemsetAsync(linear->weights_gradient, 0, classes * size_t(linear->dimensions) * 4, stream);
  if (status == cudaSuccess && linear->bias_gradient && !linear->accumulate)
    status = cudaMemsetAsync(linear->bias_gradient, 0, classes * 4, stream);
  return status == cudaSuccess ? TARE_STATUS_OK : cuda_failed(status, "clearing gradients", error);
}

head make_head(tare_backend *base, const tare_problem *problem, const tare_linear *linear, tare_stream stream,
               tare_error *error) {
  head h = {};
  h.self = reinterpret_cast<backend *>(base);
  h.problem = problem;
  h.linear = linear;
  h.error = error;
  h.site = {reinterpret_cast<cudaStream_t>(stream), h.self->multiprocessors};
  return h;
}

}  // namespace

tare_status linear_evaluate(tare_backend *base, const tare_problem *problem, const tare_linear *linear, void *workspace,
                            uint64_t workspace_bytes, tare_stream stream, tare_error *error) {
  head h = make_head(base, problem, linear, stream, error);
  const device_guard guard(h.self);
  if (guard.status != cudaSuccess) return cuda_failed(guard.status, making_current, error);
  if (problem->rows == 0) {
    const tare_status status = base->evaluate(base, problem, workspace, workspace_bytes, stream, error);
    return status ? status : clear_gradients(problem, linear, h.site.stream, error);
  }
  const head_guard ends(&h);
  const tare_status status = start(&h, workspace, workspace_bytes);
  if (status) return status;
  return tare_is_ghm(problem) ? evaluate_ghm(&h) : evaluate_other(&h);
}

tare_status linear_histogram(tare_backend *base, const tare_problem *problem, const tare_linear *linear,
                             void *workspace, uint64_t workspace_bytes, tare_stream stream, tare_error *error) {
  if (problem->rows == 0) return base->ghm_histogram(base, problem, stream, error);
  head h = make_head(base, problem, linear, stream, error);
  const device_guard guard(h.self);
  if (guard.status != cudaSuccess) return cuda_failed(guard.status, making_current, error);
  const head_guard ends(&h);
  const tare_status status = start(&h, workspace, workspace_bytes);
  if (status) return status;
  ghm_call c;
  make_ghm_call(h.self, problem, &c);
  return count_norms(&h, &c);
}

tare_status linear_workspace(tare_backend *base, const tare_problem *problem, const tare_linear *linear,
                             uint64_t *least, uint64_t *ample, tare_error *) {
  const backend *self = reinterpret_cast<const backend *>(base);
  *least = problem->rows ? least_room(problem, linear).bytes : 0;
  *ample = problem->rows ? ample_room(self, problem, linear).bytes : 0;
  return TARE_STATUS_OK;
}

}  // namespace tare
