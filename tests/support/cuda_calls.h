/* SPDX-License-Identifier: Apache-2.0 */
/*
 * CUDA's own calls in tests of what only a GPU has: each must succeed, and streams do not wait for the default one.
 * Inline, since the support library itself is also built without CUDA.
 */
#ifndef TARE_TESTS_CUDA_CALLS_H
#define TARE_TESTS_CUDA_CALLS_H

#include <criterion/criterion.h>
#include <cuda_runtime_api.h>

#define MUST(call) expect_success((call), #call)
static inline void expect_success(cudaError_t status, const char *call) {
  if (status != cudaSuccess) cr_assert_fail("%s: %s", call, cudaGetErrorName(status));
}

static inline cudaStream_t new_stream(void) {
  cudaStream_t stream;
  MUST(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
  return stream;
}

/** Buffers were filled on the default stream, for which a non-blocking one does not wait. */
static inline void wait_for_uploads(void) { MUST(cudaDeviceSynchronize()); }

#endif
