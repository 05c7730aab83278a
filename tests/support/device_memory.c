/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Device memory by CUDA's runtime. Copies are on the default stream, and so wait for the calls before them.
 */
#include "device_memory.h"

#include <criterion/criterion.h>
#include <cuda_runtime_api.h>

static void expect_success(cudaError_t status, const char *call) {
  if (status != cudaSuccess) cr_assert_fail("%s: %s (%s)", call, cudaGetErrorName(status), cudaGetErrorString(status));
}

void *cuda_allocate(size_t bytes) {
  void *memory = NULL;
  expect_success(cudaMalloc(&memory, bytes), "cudaMalloc");
  return memory;
}

void cuda_release(void *memory) { expect_success(cudaFree(memory), "cudaFree"); }

void cuda_upload(void *to, const void *from, size_t bytes) {
  if (bytes > 0) expect_success(cudaMemcpy(to, from, bytes, cudaMemcpyHostToDevice), "cudaMemcpy to the device");
}

void cuda_download(void *to, const void *from, size_t bytes) {
  if (bytes > 0) expect_success(cudaMemcpy(to, from, bytes, cudaMemcpyDeviceToHost), "cudaMemcpy to the host");
}

const char *cuda_pending_error(void) {
  const cudaError_t status = cudaPeekAtLastError();
  return status == cudaSuccess ? NULL : cudaGetErrorName(status);
}
