/* SPDX-License-Identifier: Apache-2.0 */
/* Multiplies arrays by a number in device memory, and returns at once where it is 1. Bound by memory: a thread has four
 * vectors of 16 bytes in flight. */
#include "kernels.cuh"

namespace tare {
namespace {

constexpr int vectors_a_thread = 4;

/** `lead`: how many elements an array begins behind an address of a vector. Tiles begin at such an address. */
struct scaled_arrays {
  void *array[TARE_MAX_LEVELS];
  int64_t elements[TARE_MAX_LEVELS], first_tile[TARE_MAX_LEVELS + 1];
  int32_t lead[TARE_MAX_LEVELS], count;
  const float *factor;
};

template <typename T>
constexpr int64_t tile_elements = int64_t(block_threads) * vectors_a_thread *vector<T>::size;

/** What is 0 stays 0, whatever the factor: the gradient of what does not count, times an infinity. */
template <typename T>
__device__ __forceinline__ T scaled(T x, float factor) {
  const float value = to_float(x);
  return value == 0.0f ? x : from_float<T>(value * factor);
}

/** A tile that lies in its array whole; `at` is its first element, at an address of a vector. */
template <typename T>
__device__ __forceinline__ void scale_tile(T *at, float factor) {
  T *const mine = at + thread_rank() * vector<T>::size;
  constexpr int step = block_threads * vector<T>::size;
  vector<T> v[vectors_a_thread];
#pragma unroll
  for (int k = 0; k < vectors_a_thread; k++) v[k] = load_vector<cache::once>(mine + k * step);
#pragma unroll
  for (int k = 0; k < vectors_a_thread; k++) {
    for (int j = 0; j < vector<T>::size; j++) v[k].at[j] = scaled(v[k].at[j], factor);
    store_vector(mine + k * step, v[k]);
  }
}

template <typename T>
__global__ void __launch_bounds__(block_threads) scale_gradients(const TARE_GRID_CONSTANT scaled_arrays s) {
  const float factor = *s.factor;
  if (factor == 1.0f) return;
  for (int64_t tile = blockIdx.x; tile < s.first_tile[s.count]; tile += gridDim.x) {
    int i = 0;
    while (s.first_tile[i + 1] <= tile) i++;
    T *const array = static_cast<T *>(s.array[i]);
    const int64_t from = (tile - s.first_tile[i]) * tile_elements<T> - s.lead[i];
    if (from >= 0 && from + tile_elements<T> <= s.elements[i]) {
      scale_tile(array + from, factor);
      continue;
    }
    const int64_t end = from + tile_elements<T> < s.elements[i] ? from + tile_elements<T> : s.elements[i];
    for (int64_t at = (from < 0 ? 0 : from) + thread_rank(); at < end; at += block_threads)
      array[at] = scaled(array[at], factor);
  }
}

template <typename T>
cudaError_t launch_scaling(const tare_scaling &scaling, const launch_site &site) {
  scaled_arrays s = {};
  s.count = scaling.count;
  s.factor = scaling.factor;
  for (int i = 0; i < s.count; i++) {
    s.array[i] = scaling.array[i];
    s.elements[i] = scaling.elements[i];
    s.lead[i] = int32_t(reinterpret_cast<uintptr_t>(s.array[i]) % sizeof(vector<T>) / sizeof(T));
    const int64_t all = s.lead[i] + s.elements[i];
    s.first_tile[i + 1] = s.first_tile[i] + (all + tile_elements<T> - 1) / tile_elements<T>;
  }
  return launch(scale_gradients<T>, s.first_tile[s.count], site, s);
}

}  // namespace

cudaError_t launch_scale_gradients(const tare_scaling &scaling, const launch_site &site) {
  if (scaling.dtype == TARE_DTYPE_F16) return launch_scaling<__half>(scaling, site);
  if (scaling.dtype == TARE_DTYPE_BF16) return launch_scaling<__nv_bfloat16>(scaling, site);
  return launch_scaling<float>(scaling, site);
}

cudaError_t load_scale_gradients() {
  return load_kernels(scale_gradients<float>, scale_gradients<__half>, scale_gradients<__nv_bfloat16>);
}

}  // namespace tare
