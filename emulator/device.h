/* SPDX-License-Identifier: Apache-2.0 */
/* What the runtime's stand-in shares between its files: the emulated device, kernels by their address, device memory,
 * work on streams, and the frame of every API call. */
#ifndef TARE_EMULATOR_DEVICE_H
#define TARE_EMULATOR_DEVICE_H

#include <cuda_runtime_api.h>
#include <stdint.h>

#include <cstddef>
#include <functional>
#include <mutex>
#include <vector>

namespace emulator {

/* device.cpp */
struct device_profile {
  const char *name;
  const char *device_name;
  int major, minor;
  int multiprocessors;
  int threads_per_multiprocessor;
  int blocks_per_multiprocessor;
  size_t shared_per_block;
  size_t shared_per_block_optin;
  size_t shared_per_multiprocessor;
  int l2_bytes;
  size_t memory;
};
const device_profile &profile();
cudaError_t missing_device(); /* cudaSuccess if there is one */
int blocks_per_multiprocessor(int threads, size_t static_shared, size_t dynamic_shared);

/* context.cpp: of the calling thread */
int device_count();
int current_device();
void need_context(); /* makes the chosen device's, if none is current */

/* launch.cpp */
void note_static_shared(const void *kernel, size_t bytes);

/* api.cpp: locks, looks for a missing device, a sticky or a planned error, and keeps the last one. `ask` is for calls
 * that make no context. */
cudaError_t ask(const char *call, const std::function<cudaError_t()> &work);
cudaError_t api(const char *call, const std::function<cudaError_t()> &work);
std::unique_lock<std::recursive_mutex> one_thread_alone(); /* its lock, for what happens outside a call */

/* memory.cpp */
enum class memory { unknown, pageable, pinned, device };
memory kind_of(const void *address, size_t size); /* `device`, `pinned`: all of it within one allocation */
bool looks_like_host_memory(uint64_t word);
constexpr int every_device = -1;
/* That of one device for a kernel, of every device for a copy. At other times touching it faults, as on a GPU. */
void open_device_memory(int device);
void close_device_memory(); /* and looks at the red zones */
void describe_address(const void *address, char *text, size_t size);

/* stream.cpp */
struct operation {
  const char *what;
  std::function<void()> run;
};
cudaError_t submit(cudaStream_t stream, operation work); /* queues it, or records it in a capture */
cudaError_t wait_for(cudaStream_t stream);
cudaError_t refuse_in_capture(); /* what cudaMalloc and its kind do; relaxed mode allows them */
bool capturing(cudaStream_t stream);
void spoil_capture(cudaStream_t stream);

/* queue.cpp */
cudaError_t wait_for_all(); /* runs what is queued: cudaSuccess */

}  // namespace emulator

#endif
