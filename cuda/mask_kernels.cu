/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The loss of masks: one kernel for the sums of chunks, one for what follows from them, one for the gradient. A thread
 * takes 8 pixels at a time, by vectors where these are aligned. Which pixels it takes does not depend on that, so the
 * order of sums does not either.
 */
#include "masks.cuh"
#include "primitives.cuh"

namespace tare {

namespace exact {
#include "losses/mask_pixel.h"
}

namespace masks {

#include "losses/mask_overlap.h"

constexpr int width = 8;

/** Pixels side by side. Where one does not count, x and t are 0. */
struct pixels {
  float x[width], t[width];
  bool counts[width];
  int32_t n;
};

/* ---- Loading ----------------------------------------------------------------------------------------------------- */

template <typename T>
__device__ __forceinline__ void load_vectors(const void *data, int64_t at, float (&to)[width]) {
  const T *const from = static_cast<const T *>(data) + at;
#pragma unroll
  for (int first = 0; first < width; first += vector<T>::size) {
    float some[vector<T>::size];
    widen(load_vector(from + first), some);
#pragma unroll
    for (int k = 0; k < vector<T>::size; k++) to[first + k] = some[k];
  }
}

/** Floats of one of the types of logits, by vectors. */
__device__ __forceinline__ void load_aligned(const void *data, int32_t dtype, int64_t at, float (&to)[width]) {
  if (dtype == TARE_DTYPE_F32)
    load_vectors<float>(data, at, to);
  else if (dtype == TARE_DTYPE_F16)
    load_vectors<__half>(data, at, to);
  else
    load_vectors<__nv_bfloat16>(data, at, to);
}

/** A byte that is no target becomes NaN. */
__device__ __forceinline__ float target_of_byte(uint32_t byte) { return byte < 2u ? float(byte) : NAN; }

__device__ __forceinline__ void load_bytes(const uint8_t *from, bool whole, int32_t n, uint32_t (&to)[width]) {
  if (whole) {
    const uint2 bits = *reinterpret_cast<const uint2 *>(from);
#pragma unroll
    for (int k = 0; k < width; k++) to[k] = (k < 4 ? bits.x : bits.y) >> (8 * (k % 4)) & 255u;
    return;
  }
#pragma unroll
  for (int k = 0; k < width; k++) to[k] = k < n ? from[k] : 0u;
}

__device__ __forceinline__ void load_targets(const mask_call &c, int64_t at, pixels *p) {
  const bool whole = c.aligned_targets && p->n == width;
  if (c.masks.target_dtype == TARE_MASK_TARGET_U8) {
    uint32_t bytes[width];
    load_bytes(static_cast<const uint8_t *>(c.masks.targets) + at, whole, p->n, bytes);
#pragma unroll
    for (int k = 0; k < width; k++) {
      p->t[k] = target_of_byte(bytes[k]);
      p->counts[k] = p->counts[k] && int32_t(bytes[k]) != c.masks.ignore_target;
    }
  } else if (whole) {
    load_aligned(c.masks.targets, c.masks.target_dtype, at, p->t);
  } else {
#pragma unroll
    for (int k = 0; k < width; k++)
      if (k < p->n) p->t[k] = read_as<float>(c.masks.targets, c.masks.target_dtype, at + k);
  }
}

/** `first`: of `n` pixels of a mask. */
__device__ __forceinline__ pixels load_pixels(const mask_call &c, int64_t mask, int64_t first, int32_t n) {
  pixels p;
  p.n = n;
  const int64_t at = mask * c.masks.logits_stride + first;
#pragma unroll
  for (int k = 0; k < width; k++) p.counts[k] = k < n, p.x[k] = p.t[k] = 0.0f;
  const uint8_t *const valid = c.masks.valid + mask * c.masks.valid_stride + first;
#pragma unroll
  for (int k = 0; k < width; k++)
    if (c.masks.valid && k < n) p.counts[k] = valid[k] != 0;
  if (c.aligned_logits && n == width) {
    load_aligned(c.masks.logits, c.masks.dtype, at, p.x);
  } else {
#pragma unroll
    for (int k = 0; k < width; k++)
      if (k < n) p.x[k] = read_as<float>(c.masks.logits, c.masks.dtype, at + k);
  }
  load_targets(c, mask * c.masks.targets_stride + first, &p);
#pragma unroll
  for (int k = 0; k < width; k++)
    if (!p.counts[k]) p.x[k] = p.t[k] = 0.0f;
  return p;
}

__device__ __forceinline__ float clamped(float t) { return fminf(fmaxf(t, 0.0f), 1.0f); }

__device__ __forceinline__ exact::pair focal_of(const mask_call &c, float x, float t) {
  exact::formula_parameters parameters = {};
  parameters.gamma_hi = c.gamma_hi, parameters.gamma_lo = c.gamma_lo;
  const float weight = t * c.at_1 + (1.0f - t) * c.at_0;
  if (weight == 0.0f) return exact::make_pair(0.0f, 0.0f);
  if (t > 0.0f && t < 1.0f) return exact::sigmoid_focal_soft(x, t, weight, weight, &parameters, c.power);
  exact::pair found = exact::sigmoid_focal(t > 0.0f ? x : -x, weight, weight, &parameters, c.power);
  if (t > 0.0f) found.derivative = -found.derivative;
  return found;
}

/* ---- Sums -------------------------------------------------------------------------------------------------------- */

/** Of a thread: a few dozen terms each, in float; of a block, in double. */
struct thread_sums {
  float hits = 0.0f, positive = 0.0f, negative = 0.0f;
  loss_sum focal;
  int32_t pixels = 0, wrong = 0;
};

/** Neighbours are added first, so that a sum of 8 has three roundings. */
__device__ __forceinline__ float sum_of(const float (&x)[width]) {
  return ((x[0] + x[1]) + (x[2] + x[3])) + ((x[4] + x[5]) + (x[6] + x[7]));
}

__device__ __forceinline__ void add_pixels(const mask_call &c, const pixels &from, thread_sums *sums) {
  float hits[width], positive[width], negative[width];
#pragma unroll
  for (int k = 0; k < width; k++) {
    const exact::terms terms = exact::terms_of(from.x[k]);
    const float t = clamped(from.t[k]), p = from.counts[k] ? terms.p : 0.0f, q = from.counts[k] ? terms.q : 0.0f;
    const exact::mask_misses m = c.setting.squared ? exact::mask_squares_of(p, q, t) : exact::mask_misses_of(p, q, t);
    hits[k] = p * t, positive[k] = m.positive, negative[k] = m.negative;
    if (!from.counts[k]) continue;
    sums->pixels++;
    if (!(from.t[k] >= c.target_least && from.t[k] <= c.target_most)) sums->wrong++;
    if (c.focal_weight != 0) sums->focal.add(focal_of(c, from.x[k], t).loss);
  }
  sums->hits += sum_of(hits);
  sums->positive += sum_of(positive);
  sums->negative += sum_of(negative);
}

__device__ __forceinline__ int64_t chunk_end(const mask_call &c, int64_t chunk) {
  const int64_t end = (chunk + 1) * TARE_MASK_CHUNK;
  return end < c.masks.pixels ? end : c.masks.pixels;
}

/** Calls `work` with the first of a thread's pixels, and how many they are. */
template <typename Work>
__device__ __forceinline__ void for_pixels(const mask_call &c, int64_t chunk, Work &&work) {
  const int64_t end = chunk_end(c, chunk);
  for (int64_t first = chunk * TARE_MASK_CHUNK + thread_rank() * width; first < end; first += block_threads * width)
    work(first, int32_t(end - first < width ? end - first : width));
}

__global__ void __launch_bounds__(block_threads) sum_masks(const TARE_GRID_CONSTANT mask_call c) {
  for (int64_t piece = blockIdx.x; piece < c.masks.masks * c.chunks; piece += gridDim.x) {
    const int64_t mask = piece / c.chunks, chunk = piece % c.chunks;
    thread_sums mine;
    for_pixels(c, chunk, [&](int64_t first, int32_t n) { add_pixels(c, load_pixels(c, mask, first, n), &mine); });
    tare_mask_partial all;
    all.true_positives = block_sum<block_threads>(double(mine.hits));
    all.false_positives = block_sum<block_threads>(double(mine.positive));
    all.false_negatives = block_sum<block_threads>(double(mine.negative));
    all.focal = c.focal_weight != 0 ? block_sum<block_threads>(mine.focal.all()) : 0.0;
    all.pixels = int64_t(block_sum<block_threads>(double(mine.pixels)));
    all.first_invalid = block_sum<block_threads>(double(mine.wrong)) > 0 ? 0 : INT64_MAX;
    if (thread_rank() == 0) c.partials[piece] = all;
  }
}

/* ---- What follows ------------------------------------------------------------------------------------------------ */

/** By a warp: lanes share the chunks. */
__device__ __forceinline__ tare_mask_partial sum_of_chunks(const mask_call &c, int64_t mask) {
  double sums[6] = {0, 0, 0, 0, 0, 0};
  for (int64_t chunk = lane(); chunk < c.chunks; chunk += warp_size) {
    const tare_mask_partial &one = c.partials[mask * c.chunks + chunk];
    sums[0] += one.true_positives, sums[1] += one.false_positives, sums[2] += one.false_negatives;
    sums[3] += one.focal, sums[4] += double(one.pixels), sums[5] += one.first_invalid != INT64_MAX;
  }
#pragma unroll
  for (int k = 0; k < 6; k++) sums[k] = warp_sum(sums[k]);
  return {sums[0], sums[1], sums[2], sums[3], int64_t(sums[4]), sums[5] > 0 ? 0 : INT64_MAX};
}

__device__ __forceinline__ double times_weight(double weight, double loss) { return weight == 0 ? 0 : weight * loss; }

__device__ __forceinline__ double loss_of(const mask_call &c, const tare_mask_result &r) {
  return times_weight(c.overlap_weight, r.overlap.loss) + times_weight(c.focal_weight, r.mean_focal);
}

__device__ __forceinline__ void finish_mask(const mask_call &c, int64_t mask, const tare_mask_partial &sums) {
  const double weight = c.masks.mask_weights ? double(c.masks.mask_weights[mask]) : 1.0;
  const tare_mask_result r = tare_mask_result_of(&sums, &c.setting, weight, c.overlap_weight, c.focal_weight);
  c.results[mask] = r;
  if (c.output.mask_loss) static_cast<float *>(c.output.mask_loss)[mask] = float(loss_of(c, r));
  if (!c.output.sums) return;
  const bool valid = r.first_invalid == INT64_MAX;
  c.output.sums[mask] = {valid ? sums.true_positives : 0,  valid ? sums.false_positives : 0,
                         valid ? sums.false_negatives : 0, valid ? sums.focal : 0,
                         valid ? sums.pixels : 0,          0};
}

__device__ __forceinline__ void write_loss(const mask_call &c, void *to, double loss) {
  if (to && c.output.loss_dtype == TARE_DTYPE_F64) *static_cast<double *>(to) = loss;
  if (to && c.output.loss_dtype == TARE_DTYPE_F32) *static_cast<float *>(to) = float(loss);
}

/** By one thread. */
__device__ __forceinline__ void write_totals(const mask_call &c, tare_mask_totals totals) {
  const tare_mask_output &o = c.output;
  totals.divisor = 1;
  if (o.normalizer == TARE_NORMALIZER_ROWS && totals.counted > 0) totals.divisor = double(totals.counted);
  if (o.normalizer == TARE_NORMALIZER_VALUE)
    totals.divisor = o.normalizer_pointer ? double(*o.normalizer_pointer) : o.normalizer_value;
  *c.totals = totals;
  write_loss(c, o.loss, totals.loss / totals.divisor);
  write_loss(c, o.overlap_loss, totals.overlap / totals.divisor);
  write_loss(c, o.focal_loss, totals.focal / totals.divisor);
  if (totals.invalid) atomic_add(&c.record->invalid_targets, uint64_t(totals.invalid));
}

/** Each warp finishes masks of its own; the last block adds them up. */
__global__ void __launch_bounds__(block_threads) finish_masks(const TARE_GRID_CONSTANT mask_call c) {
  constexpr int warps = block_threads / int(warp_size);
  for (int64_t mask = int64_t(blockIdx.x) * warps + thread_rank() / warp_size; mask < c.masks.masks;
       mask += int64_t(gridDim.x) * warps) {
    const tare_mask_partial sums = sum_of_chunks(c, mask);
    if (lane() == 0) finish_mask(c, mask, sums);
  }
  if (!last_block(&c.record->ticket)) return;
  double overlap = 0, focal = 0, loss = 0, counted = 0, invalid = 0;
  for (int64_t mask = thread_rank(); mask < c.masks.masks; mask += block_threads) {
    const tare_mask_result &r = c.results[mask];
    overlap += r.overlap.loss, focal += r.mean_focal, loss += loss_of(c, r);
    counted += double(r.counts), invalid += r.first_invalid != INT64_MAX;
    if (r.first_invalid != INT64_MAX) atomic_min(&c.record->first_target, uint64_t(mask));
  }
  tare_mask_totals totals = {};
  totals.overlap = block_sum<block_threads>(overlap);
  totals.focal = block_sum<block_threads>(focal);
  totals.loss = block_sum<block_threads>(loss);
  totals.counted = int64_t(block_sum<block_threads>(counted));
  totals.invalid = int64_t(block_sum<block_threads>(invalid));
  if (thread_rank() == 0) write_totals(c, totals);
}

/* ---- The gradient ------------------------------------------------------------------------------------------------ */

/** What all pixels of a mask share. */
struct mask_setting {
  exact::mask_slope slope;
  float scale; /* that is not finite, and comes last; else 1 */
  bool is_zero;
};

__device__ __forceinline__ mask_setting make_setting(const mask_call &c, const tare_mask_result &r) {
  const tare_mask_output &o = c.output;
  const double scale = o.gradient_scale * (o.gradient_scale_pointer ? double(*o.gradient_scale_pointer) : 1.0);
  const bool follows = !is_finite(scale);
  const double factor = (follows ? 1.0 : scale) / c.totals->divisor, whole = r.overlap.factor * factor;
  const double size = fabs(whole), unit = size > 1e30 ? 0x1p100 : size < 1e-30 ? 0x1p-100 : 1.0;
  mask_setting s;
  s.slope.of_zeros = float(r.overlap.of_zeros);
  s.slope.of_ones = float(r.overlap.of_ones);
  s.slope.of_hits = float(r.overlap.of_hits);
  s.slope.first = float(whole / unit);
  s.slope.second = float(unit);
  s.slope.focal = float(r.focal_factor * factor);
  s.scale = follows ? float(scale) : 1.0f;
  s.is_zero = r.overlap.factor == 0 && r.focal_factor == 0;
  return s;
}

template <typename T>
__device__ __forceinline__ void store_as(const mask_call &c, float scale, int64_t at, int32_t n,
                                         const float (&gradient)[width]) {
  T *const to = static_cast<T *>(c.output.gradient) + at;
  T rounded[width];
#pragma unroll
  for (int k = 0; k < width; k++) {
    rounded[k] = from_float<T>(gradient[k]);
    const float unscaled = to_float(rounded[k]);
    if (scale != 1.0f && unscaled != 0.0f) rounded[k] = from_float<T>(unscaled * scale);
  }
  if (c.aligned_gradient && n == width) {
#pragma unroll
    for (int first = 0; first < width; first += vector<T>::size) {
      vector<T> v;
#pragma unroll
      for (int k = 0; k < vector<T>::size; k++) v.at[k] = rounded[first + k];
      store_vector(to + first, v);
    }
    return;
  }
#pragma unroll
  for (int k = 0; k < width; k++)
    if (k < n) to[k] = rounded[k];
}

__device__ __forceinline__ void store_gradient(const mask_call &c, float scale, int64_t at, int32_t n,
                                               const float (&gradient)[width]) {
  if (c.masks.dtype == TARE_DTYPE_F32)
    store_as<float>(c, scale, at, n, gradient);
  else if (c.masks.dtype == TARE_DTYPE_F16)
    store_as<__half>(c, scale, at, n, gradient);
  else
    store_as<__nv_bfloat16>(c, scale, at, n, gradient);
}

__device__ __forceinline__ float derivative_of(const mask_call &c, const mask_setting &s, float x, float t) {
  const exact::terms terms = exact::terms_of(x);
  float derivative = c.setting.squared ? exact::mask_squared_derivative(terms.p, terms.q, t, &s.slope)
                                       : exact::mask_derivative(terms.p, terms.q, t, &s.slope);
  if (c.focal_weight == 0) return derivative;
  const float focal = focal_of(c, x, t).derivative;
  return focal == 0.0f ? derivative : derivative + focal * s.slope.focal;
}

/** A mask without a gradient is not read: its logits may be NaN. */
__global__ void __launch_bounds__(block_threads) write_masks(const TARE_GRID_CONSTANT mask_call c) {
  TARE_SHARED(mask_setting, shared);
  for (int64_t piece = blockIdx.x; piece < c.masks.masks * c.chunks; piece += gridDim.x) {
    const int64_t mask = piece / c.chunks, chunk = piece % c.chunks;
    __syncthreads();
    if (thread_rank() == 0) shared = make_setting(c, c.results[mask]);
    __syncthreads();
    for_pixels(c, chunk, [&](int64_t first, int32_t n) {
      float gradient[width] = {0.0f, 0.0f, 0.0f, 0.0f, 0.0f, 0.0f, 0.0f, 0.0f};
      if (!shared.is_zero) {
        const pixels from = load_pixels(c, mask, first, n);
#pragma unroll
        for (int k = 0; k < width; k++)
          if (from.counts[k]) gradient[k] = derivative_of(c, shared, from.x[k], clamped(from.t[k]));
      }
      store_gradient(c, shared.scale, mask * c.output.gradient_stride + first, n, gradient);
    });
  }
}

}  // namespace masks

cudaError_t launch_mask_sums(const mask_call &c, const launch_site &site) {
  return launch(masks::sum_masks, c.masks.masks * c.chunks, site, c);
}

cudaError_t launch_finish_masks(const mask_call &c, const launch_site &site) {
  constexpr int warps = block_threads / int(warp_size);
  return launch(masks::finish_masks, (c.masks.masks + warps - 1) / warps, site, c);
}

cudaError_t launch_mask_gradients(const mask_call &c, const launch_site &site) {
  return launch(masks::write_masks, c.masks.masks * c.chunks, site, c);
}

cudaError_t load_masks() { return load_kernels(masks::sum_masks, masks::finish_masks, masks::write_masks); }

}  // namespace tare
