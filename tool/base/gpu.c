/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Memory and time of a GPU.
 */
#define _GNU_SOURCE
#include "gpu.h"

#include <inttypes.h>
#include <stddef.h>
#include <stdlib.h>

#include "problem.h"

#ifdef TARE_TOOL_GPU

#include <cuda_runtime_api.h>

/* After a failed call every further call fails, so the tool cannot continue. */
static void must(cudaError_t status, const char *doing) {
  if (status == cudaSuccess) return;
  complain("%s: %s (%s)", doing, cudaGetErrorString(status), cudaGetErrorName(status));
  exit(TOOL_FAILED);
}

void *gpu_alloc(uint64_t bytes) {
  void *memory = NULL;
  const cudaError_t status = cudaMalloc(&memory, bytes == 0 ? 16 : (size_t)bytes);
  if (status == cudaSuccess) return memory;
  cudaGetLastError();
  complain("no GPU memory for %" PRIu64 " bytes (%s); use fewer rows at a time", bytes, cudaGetErrorName(status));
  return NULL;
}

void gpu_free(void *memory) { cudaFree(memory); }

void gpu_copy(void *to, const void *from, uint64_t bytes) {
  if (bytes) must(cudaMemcpy(to, from, (size_t)bytes, cudaMemcpyDefault), "copying");
}

void gpu_clear(void *memory, uint64_t bytes) {
  if (bytes) must(cudaMemsetAsync(memory, 0, (size_t)bytes, NULL), "clearing");
}

void gpu_start_copy(void *to, const void *from, uint64_t bytes) {
  if (bytes) must(cudaMemcpyAsync(to, from, (size_t)bytes, cudaMemcpyDeviceToDevice, NULL), "copying");
}

uint64_t gpu_cache_bytes(void) {
  int device = 0, bytes = 0;
  must(cudaGetDevice(&device), "asking for the GPU");
  must(cudaDeviceGetAttribute(&bytes, cudaDevAttrL2CacheSize, device), "asking for the GPU's cache");
  return (uint64_t)bytes;
}

uint64_t gpu_free_bytes(void) {
  size_t free_bytes = 0, all = 0;
  must(cudaDeviceSynchronize(), "waiting for the GPU");
  must(cudaMemGetInfo(&free_bytes, &all), "asking for the GPU's memory");
  return free_bytes;
}

/* Ends with reads, into one small part: what is written is mostly gone from the cache when the clock starts. */
void gpu_flush(void *scratch, uint64_t room) {
  enum { PARTS = 128 };
  const size_t part = (size_t)(room / PARTS);
  must(cudaMemsetAsync(scratch, 0x5A, (size_t)room, NULL), "flushing the GPU's cache");
  for (size_t i = 1; i < PARTS; i++) {
    const char *const from = (const char *)scratch + i * part;
    must(cudaMemcpyAsync(scratch, from, part, cudaMemcpyDeviceToDevice, NULL), "flushing by reads");
  }
}

static struct { cudaEvent_t start, stop; } timer;

void gpu_timer_start(void) {
  if (!timer.start) {
    must(cudaEventCreate(&timer.start), "making a timer");
    must(cudaEventCreate(&timer.stop), "making a timer");
  }
  must(cudaEventRecord(timer.start, NULL), "timing");
}

double gpu_timer_stop(void) {
  float milliseconds = 0;
  must(cudaEventRecord(timer.stop, NULL), "timing");
  must(cudaEventSynchronize(timer.stop), "waiting for the GPU");
  must(cudaEventElapsedTime(&milliseconds, timer.start, timer.stop), "timing");
  return (double)milliseconds * 1e-3;
}

#else

/* Never called: without CUDA, device_open refuses a GPU context. */
static void *absent(void) {
  complain("this tool was built without CUDA");
  exit(TOOL_FAILED);
}

void *gpu_alloc(uint64_t bytes) {
  (void)bytes;
  return absent();
}
void gpu_free(void *memory) { (void)memory; }
void gpu_copy(void *to, const void *from, uint64_t bytes) { (void)to, (void)from, (void)bytes, absent(); }
void gpu_clear(void *memory, uint64_t bytes) { (void)memory, (void)bytes, absent(); }
void gpu_start_copy(void *to, const void *from, uint64_t bytes) { (void)to, (void)from, (void)bytes, absent(); }
uint64_t gpu_cache_bytes(void) { return absent() != NULL; }
uint64_t gpu_free_bytes(void) { return absent() != NULL; }
void gpu_flush(void *scratch, uint64_t room) { (void)scratch, (void)room, absent(); }
void gpu_timer_start(void) { absent(); }
double gpu_timer_stop(void) { return absent() != NULL; }

#endif
