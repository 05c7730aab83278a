/* SPDX-License-Identifier: Apache-2.0 */
/* The sort of the exact density: CUB's radix sort, in a file of its own because the emulator has a twin of it
 * (tests/support/emulated_sort.cu) instead. */
#include <cub/device/device_radix_sort.cuh>

#include "kernels.cuh"

cudaError_t tare::sort_keys(void *room, size_t *bytes, const double *from, double *to, int64_t n, cudaStream_t stream) {
  return cub::DeviceRadixSort::SortKeys(room, *bytes, from, to, n, 0, 64, stream);
}
