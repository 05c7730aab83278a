/* SPDX-License-Identifier: Apache-2.0 */
/* What the emulated library has in place of cuda/sort.cu: a kernel of one thread that calls the host's sort. */
#include <algorithm>

#include "cuda/kernels.cuh"

namespace {

/** The order of CUB's radix sort: a positive NaN behind everything. */
bool comes_before(double a, double b) { return b != b ? a == a : a < b; }

__global__ void sort(const double *from, double *to, int64_t n) {
  if (threadIdx.x != 0) return;
  std::copy(from, from + n, to);
  std::sort(to, to + n, comes_before);
}

}  // namespace

cudaError_t tare::sort_keys(void *room, size_t *bytes, const double *from, double *to, int64_t n, cudaStream_t stream) {
  if (!room) {
    *bytes = 256;
    return cudaSuccess;
  }
  cudaLaunchConfig_t config = {};
  config.gridDim = dim3(1);
  config.blockDim = dim3(32);
  config.stream = stream;
  return cudaLaunchKernelEx(&config, sort, from, to, n);
}
