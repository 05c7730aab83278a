/* SPDX-License-Identifier: Apache-2.0 */
/* The kernels of the fused head between cuBLAS's products of a chunk. The chunk has just been written and is in L2. */
#include <type_traits>

#include "linear.cuh"

namespace tare {
namespace {

/** Blocks take strips of rows, as many columns as there are threads; with fewer columns, several rows side by side. */
struct strip_walk {
  uint32_t across, down, groups;
  int64_t pieces;
};

__host__ __device__ __forceinline__ strip_walk walk_of(int64_t rows, int32_t classes) {
  strip_walk w;
  w.across = uint32_t(classes < block_threads ? classes : block_threads);
  w.down = block_threads / w.across;
  w.groups = (uint32_t(classes) + w.across - 1) / w.across;
  w.pieces = (rows + strip_rows - 1) / strip_rows * w.groups;
  return w;
}

/** Calls `work(strip, column, first row, end row, active)` by all threads of a block for each of its pieces; the rows
 *  are every `down`-th. */
template <typename Work>
__device__ __forceinline__ void for_each_strip(const strip_walk &w, int64_t rows, int32_t classes, Work &&work) {
  const uint32_t beside = thread_rank() % w.across, below = thread_rank() / w.across;
  for (uint32_t piece = blockIdx.x; piece < uint32_t(w.pieces); piece += gridDim.x) {
    const uint32_t strip = piece / w.groups, column = (piece - strip * w.groups) * w.across + beside;
    const int64_t first = int64_t(strip) * strip_rows, end = first + strip_rows < rows ? first + strip_rows : rows;
    work(strip, column, first + below, end, below < w.down && column < uint32_t(classes));
  }
}

template <typename T>
__global__ void __launch_bounds__(block_threads)
    broadcast_bias(const T *bias, float *logits, int64_t elements, int32_t classes) {
  const int64_t step = int64_t(gridDim.x) * block_threads;
  const uint32_t step_columns = uint32_t(step) % uint32_t(classes);
  int64_t at = blockIdx.x * int64_t(block_threads) + thread_rank();
  uint32_t column = uint32_t(at) % uint32_t(classes);
  for (; at < elements; at += step) {
    logits[at] = to_float(bias[column]);
    column += step_columns;
    if (column >= uint32_t(classes)) column -= uint32_t(classes);
  }
}

/** Adds up columns: in f32 over a thread's rows of a strip, beyond that in f64. Rounds the gradient to T where that is
 *  as wide as a float's exponent; for f16 finds its largest element, so that it can be scaled. */
template <typename T>
__global__ void __launch_bounds__(block_threads) reduce_columns(const TARE_GRID_CONSTANT chunk_gradient g) {
  constexpr bool measures = std::is_same<T, __half>::value, rounds = std::is_same<T, __nv_bfloat16>::value;
  TARE_SHARED(float[block_threads], of_thread);
  const strip_walk w = walk_of(g.rows, g.classes);
  uint32_t largest = 0;
  for_each_strip(w, g.rows, g.classes, [&](uint32_t strip, uint32_t column, int64_t row, int64_t end, bool active) {
    float sum = 0.0f;
#pragma unroll 4
    for (; active && row < end; row += w.down) {
      const float x = g.logits_gradient[row * g.classes + column];
      sum += x;
      if (measures) largest = max(largest, __float_as_uint(fabsf(x)));
      if (rounds && g.narrowed) static_cast<T *>(g.narrowed)[row * g.narrowed_stride + column] = from_float<T>(x);
    }
    of_thread[thread_rank()] = sum;
    __syncthreads();
    if (g.sums && active && thread_rank() < w.across) {
      double *const place = g.sums + int64_t(strip) * g.classes + column;
      double total = g.follows ? *place : 0.0;
      for (uint32_t k = 0; k < w.down; k++) total += double(of_thread[k * w.across + thread_rank()]);
      *place = total;
    }
    __syncthreads();
  });
  if (!measures) return;
  largest = warp_max(largest);
  if (lane() == 0) atomic_max(&g.record->largest, largest);
}

/** A power of two that takes numbers up to `largest` (its bits) below 2^15; 1 where it is infinite or NaN. */
__device__ __forceinline__ float scale_for(uint32_t largest) {
  const int exponent = int(largest >> 23); /* biased; 2^(exponent-127) <= largest */
  if (exponent == 255) return 1.0f;
  const int wanted = 2 * 127 + 14 - exponent;
  return __uint_as_float(uint32_t(wanted < 240 ? wanted : 240) << 23); /* its inverse is a normal number, too */
}

/** 1/scale of a power of two. */
__device__ __forceinline__ float inverse_of(float scale) {
  return __uint_as_float((254u << 23) - __float_as_uint(scale));
}

/** Rounds the gradient to f16. */
__global__ void __launch_bounds__(block_threads) gradient_to_f16(const TARE_GRID_CONSTANT chunk_gradient g) {
  const float scale = scale_for(*static_cast<const volatile uint32_t *>(&g.record->largest));
  const strip_walk w = walk_of(g.rows, g.classes);
  for_each_strip(w, g.rows, g.classes, [&](uint32_t, uint32_t column, int64_t row, int64_t end, bool active) {
#pragma unroll 4
    for (; active && row < end; row += w.down)
      static_cast<__half *>(g.narrowed)[row * g.narrowed_stride + column] =
          from_float<__half>(g.logits_gradient[row * g.classes + column] * scale);
  });
  if (blockIdx.x == 0 && thread_rank() == 0) g.record->unscale = inverse_of(scale);
  if (last_block(&g.record->ticket) && thread_rank() == 0) g.record->largest = 0;
}

/** 1 where the scale is finite, and has been applied. */
__device__ __forceinline__ double carried_by(const late_scale &scale) {
  const double all = scale.device ? scale.host * double(*scale.device) : 1.0;
  return is_finite(all) ? 1.0 : all;
}

/** A gradient that is 0 without the scale stays 0. */
__device__ __forceinline__ float carry(float x, double scale) { return x == 0.0f ? 0.0f : float(double(x) * scale); }

template <typename T>
__global__ void __launch_bounds__(block_threads)
    apply_late_scale(const late_scale scale, T *data, int64_t rows, int64_t columns, int64_t stride) {
  const double all = carried_by(scale);
  if (all == 1.0) return;
  for (int64_t row = blockIdx.x; row < rows; row += gridDim.x)
    for (int64_t i = thread_rank(); i < columns; i += block_threads)
      data[row * stride + i] = from_float<T>(carry(to_float(data[row * stride + i]), all));
}

__global__ void __launch_bounds__(block_threads)
    add_late_scaled(const late_scale scale, const float *apart, float *to, int64_t count) {
  const double all = carried_by(scale);
  const int64_t step = int64_t(gridDim.x) * block_threads;
  for (int64_t i = blockIdx.x * int64_t(block_threads) + thread_rank(); i < count; i += step)
    to[i] += all == 1.0 ? apart[i] : carry(apart[i], all);
}

/** A block for 32 columns; its warps share the strips. */
__global__ void __launch_bounds__(block_threads)
    reduce_strips(const double *sums, int64_t strips, int32_t classes, int32_t add, float *to, const late_scale scale) {
  constexpr int warps = block_threads / int(warp_size);
  TARE_SHARED(double[block_threads], of_thread);
  const int64_t each = (strips + warps - 1) / warps, first = int64_t(thread_rank() / warp_size) * each;
  const int64_t end = first + each < strips ? first + each : strips;
  for (int32_t from = int32_t(blockIdx.x * warp_size); from < classes; from += int32_t(gridDim.x * warp_size)) {
    const int32_t column = from + int32_t(lane());
    double sum = 0.0;
#pragma unroll 4
    for (int64_t strip = first; column < classes && strip < end; strip++) sum += sums[strip * classes + column];
    of_thread[thread_rank()] = sum;
    __syncthreads();
    if (thread_rank() < warp_size && column < classes) {
      double total = 0.0;
      for (int k = 0; k < warps; k++) total += of_thread[unsigned(k) * warp_size + thread_rank()];
      const double all = carried_by(scale);
      if (all != 1.0) total = float(total) == 0.0f ? 0.0 : total * all;
      to[column] = float(add ? total + double(to[column]) : total);
    }
    __syncthreads();
  }
}

template <typename T>
cudaError_t spread(const void *bias, float *logits, int64_t rows, int32_t classes, const launch_site &site) {
  const int64_t elements = rows * classes;
  return launch(broadcast_bias<T>, (elements + block_threads - 1) / block_threads, site, static_cast<const T *>(bias),
                logits, elements, classes);
}

}  // namespace

cudaError_t load_linear() {
  return load_kernels(broadcast_bias<float>, broadcast_bias<__half>, broadcast_bias<__nv_bfloat16>,
                      reduce_columns<float>, reduce_columns<__half>, reduce_columns<__nv_bfloat16>, gradient_to_f16,
                      reduce_strips);
}

cudaError_t launch_broadcast_bias(const void *bias, int32_t dtype, float *logits, int64_t rows, int32_t classes,
                                  const launch_site &site) {
  if (dtype == TARE_DTYPE_F16) return spread<__half>(bias, logits, rows, classes, site);
  if (dtype == TARE_DTYPE_BF16) return spread<__nv_bfloat16>(bias, logits, rows, classes, site);
  return spread<float>(bias, logits, rows, classes, site);
}

cudaError_t launch_reduce_columns(const chunk_gradient &g, int32_t dtype, const launch_site &site) {
  const int64_t pieces = walk_of(g.rows, g.classes).pieces;
  if (dtype == TARE_DTYPE_BF16) return launch(reduce_columns<__nv_bfloat16>, pieces, site, g);
  if (dtype == TARE_DTYPE_F32 || !g.narrowed) return launch(reduce_columns<float>, pieces, site, g);
  const cudaError_t status = launch(reduce_columns<__half>, pieces, site, g);
  return status == cudaSuccess ? launch(gradient_to_f16, pieces, site, g) : status;
}

cudaError_t launch_reduce_strips(const double *sums, int64_t strips, int32_t classes, bool add, float *to,
                                 const late_scale &scale, const launch_site &site) {
  return launch(reduce_strips, (classes + int64_t(warp_size) - 1) / warp_size, site, sums, strips, classes,
                int32_t(add), to, scale);
}

cudaError_t launch_apply_late_scale(const late_scale &scale, int32_t dtype, void *data, int64_t rows, int64_t columns,
                                    int64_t stride, const launch_site &site) {
  if (dtype == TARE_DTYPE_F16)
    return launch(apply_late_scale<__half>, rows, site, scale, static_cast<__half *>(data), rows, columns, stride);
  if (dtype == TARE_DTYPE_BF16)
    return launch(apply_late_scale<__nv_bfloat16>, rows, site, scale, static_cast<__nv_bfloat16 *>(data), rows, columns,
                  stride);
  return launch(apply_late_scale<float>, rows, site, scale, static_cast<float *>(data), rows, columns, stride);
}

cudaError_t launch_add_late_scaled(const late_scale &scale, const float *apart, float *to, int64_t count,
                                   const launch_site &site) {
  return launch(add_late_scaled, (count + block_threads - 1) / block_threads, site, scale, apart, to, count);
}

}  // namespace tare
