/* SPDX-License-Identifier: Apache-2.0 */
/* The launch calls: what a GPU refuses is refused with the same status; then the work goes to its stream. */
#include "launch.h"

#include <string.h>

#include <algorithm>
#include <map>

#include "control.h"
#include "device.h"
#include "record.h"
#include "thread.h"

namespace emulator {

namespace {

struct known_kernel {
  binder bind = nullptr;
  std::vector<size_t> sizes;
  int dynamic_limit =
      -1; /* cudaFuncAttributeMaxDynamicSharedMemorySize; not set: what static memory leaves of 48 KiB */
  size_t static_shared = 0; /* the most that a block has used so far */
  unsigned loaded = 0;      /* a bit for each device */
};

std::map<const void *, known_kernel> &kernels() {
  static std::map<const void *, known_kernel> all;
  return all;
}

uint64_t kernels_run = 0;

/* A kernel is loaded when it is first used on a device. A capture that forbids unsafe calls forbids that too. */
cudaError_t load(known_kernel &k) {
  const unsigned here = 1u << current_device();
  if (k.loaded & here) return cudaSuccess;
  const cudaError_t refused = refuse_in_capture();
  if (!refused) k.loaded |= here;
  return refused;
}

size_t dynamic_limit(const known_kernel &k) {
  if (k.dynamic_limit >= 0) return size_t(k.dynamic_limit);
  return profile().shared_per_block - std::min(k.static_shared, profile().shared_per_block);
}

cudaError_t check_sizes(const launch &l, const known_kernel &k) {
  const dim3 &g = l.grid, &t = l.threads;
  if (g.x == 0 || g.y == 0 || g.z == 0 || t.x == 0 || t.y == 0 || t.z == 0) return cudaErrorInvalidConfiguration;
  if (g.x > 0x7fffffffu || g.y > 65535 || g.z > 65535) return cudaErrorInvalidConfiguration;
  if (t.x > 1024 || t.y > 1024 || t.z > 64 || uint64_t(t.x) * t.y * t.z > 1024) return cudaErrorInvalidConfiguration;
  if (l.dynamic_shared > dynamic_limit(k)) return cudaErrorInvalidValue;
  if (!l.cooperative) return cudaSuccess;
  const uint64_t fit = uint64_t(blocks_per_multiprocessor(int(t.x * t.y * t.z), k.static_shared, l.dynamic_shared)) *
                       uint64_t(profile().multiprocessors);
  return uint64_t(g.x) * g.y * g.z > fit ? cudaErrorCooperativeLaunchTooLarge : cudaSuccess;
}

std::vector<std::vector<char>> copy_arguments(const known_kernel &k, void **arguments) {
  std::vector<std::vector<char>> copies;
  for (size_t i = 0; i < k.sizes.size(); i++) {
    const char *const bytes = static_cast<const char *>(arguments[i]);
    copies.emplace_back(bytes, bytes + k.sizes[i]);
  }
  return copies;
}

/* A word of an argument that is the address of mapped host memory is taken for a host pointer given to a kernel. */
void check_arguments(const launch &l, const known_kernel &k, void **arguments) {
  for (size_t i = 0; i < k.sizes.size(); i++)
    for (size_t at = 0; at + sizeof(uint64_t) <= k.sizes[i]; at += sizeof(uint64_t)) {
      uint64_t word;
      memcpy(&word, static_cast<char *>(arguments[i]) + at, sizeof word);
      if (!looks_like_host_memory(word)) continue;
      launched = &l; /* so that the report names the kernel */
      fail("argument %zu, byte %zu, is host memory (%#llx) where a kernel needs device memory, or was never set", i, at,
           static_cast<unsigned long long>(word));
    }
}

cudaError_t read_attributes(const cudaLaunchConfig_t &config, launch &l) {
  for (unsigned i = 0; i < config.numAttrs; i++) {
    const cudaLaunchAttribute &a = config.attrs[i];
    switch (a.id) {
      case cudaLaunchAttributeCooperative:
        l.cooperative = a.val.cooperative != 0;
        break;
      case cudaLaunchAttributeClusterDimension:
        if (a.val.clusterDim.x * a.val.clusterDim.y * a.val.clusterDim.z != 1) return cudaErrorNotSupported;
        break;
      case cudaLaunchAttributeIgnore:
      case cudaLaunchAttributePriority:
      case cudaLaunchAttributeProgrammaticStreamSerialization:
      case cudaLaunchAttributeAccessPolicyWindow:
        break; /* of speed alone */
      default:
        return cudaErrorNotSupported;
    }
  }
  return cudaSuccess;
}

cudaError_t launch_kernel(const cudaLaunchConfig_t *config, const void *kernel, void **arguments) {
  if (!config || !kernel) return cudaErrorInvalidValue;
  const auto found = kernels().find(kernel);
  if (found == kernels().end())
    fail("a kernel launched by a bare address is not known yet: launch it with its type, or name it with TARE_KERNEL");
  launch l = {kernel, config->gridDim, config->blockDim, config->dynamicSmemBytes, false, nullptr};
  cudaError_t status = load(found->second);
  if (!status) status = read_attributes(*config, l);
  if (!status) status = check_sizes(l, found->second);
  if (status) return status;
  check_arguments(l, found->second, arguments);
  l.body = found->second.bind(kernel, arguments);
  const int device = current_device();
  const auto copies = copy_arguments(found->second, arguments);
  return submit(config->stream, {"kernel", [l, device, copies] {
                                   launched = &l;
                                   open_device_memory(device);
                                   record_launch(l, copies);
                                   run_grid();
                                   close_device_memory();
                                   launched = nullptr;
                                   kernels_run++;
                                 }});
}

}  // namespace

void note_kernel(const void *kernel, binder bind, std::vector<size_t> sizes) {
  const auto held = one_thread_alone(); /* another thread may be launching */
  known_kernel &k = kernels()[kernel];
  k.bind = bind;
  k.sizes = std::move(sizes);
}

void note_static_shared(const void *kernel, size_t bytes) {
  known_kernel &k = kernels()[kernel];
  k.static_shared = std::max(k.static_shared, bytes);
}

}  // namespace emulator

using namespace emulator;

cudaError_t cudaLaunchKernelExC(const cudaLaunchConfig_t *config, const void *kernel, void **arguments) {
  const cudaError_t status = api("cudaLaunchKernelExC", [&] { return launch_kernel(config, kernel, arguments); });
  if (status && config) { /* what a failed launch does to a capture is not documented */
    const auto held = one_thread_alone();
    spoil_capture(config->stream);
  }
  return status;
}

cudaError_t cudaLaunchKernel(const void *kernel, dim3 grid, dim3 block, void **arguments, size_t shared,
                             cudaStream_t stream) {
  cudaLaunchConfig_t config = {grid, block, shared, stream, nullptr, 0};
  return cudaLaunchKernelExC(&config, kernel, arguments);
}

cudaError_t cudaLaunchCooperativeKernel(const void *kernel, dim3 grid, dim3 block, void **arguments, size_t shared,
                                        cudaStream_t stream) {
  cudaLaunchAttribute cooperative = {};
  cooperative.id = cudaLaunchAttributeCooperative;
  cooperative.val.cooperative = 1;
  cudaLaunchConfig_t config = {grid, block, shared, stream, &cooperative, 1};
  return cudaLaunchKernelExC(&config, kernel, arguments);
}

cudaError_t cudaFuncSetAttribute(const void *kernel, cudaFuncAttribute attribute, int value) {
  return api(__func__, [&] {
    known_kernel &k = kernels()[kernel];
    const cudaError_t refused = load(k);
    if (refused) return refused;
    if (attribute != cudaFuncAttributeMaxDynamicSharedMemorySize)
      return attribute == cudaFuncAttributePreferredSharedMemoryCarveout ? cudaSuccess : cudaErrorInvalidValue;
    if (value < 0 || size_t(value) + k.static_shared > profile().shared_per_block_optin) return cudaErrorInvalidValue;
    k.dynamic_limit = value;
    return cudaSuccess;
  });
}

cudaError_t cudaFuncGetAttributes(cudaFuncAttributes *attributes, const void *kernel) {
  return api(__func__, [&] {
    if (!attributes || !kernel) return cudaErrorInvalidValue;
    known_kernel &k = kernels()[kernel];
    const cudaError_t refused = load(k);
    if (refused) return refused;
    *attributes = {};
    attributes->sharedSizeBytes = k.static_shared;
    attributes->maxThreadsPerBlock = 1024;
    attributes->maxDynamicSharedSizeBytes = int(dynamic_limit(k));
    attributes->numRegs = 32;
    attributes->binaryVersion = attributes->ptxVersion = profile().major * 10 + profile().minor;
    return cudaSuccess;
  });
}

cudaError_t cudaOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(int *blocks, const void *kernel, int threads,
                                                                   size_t dynamic_shared, unsigned) {
  return api("cudaOccupancyMaxActiveBlocksPerMultiprocessor", [&] {
    if (!blocks || !kernel || threads < 1) return cudaErrorInvalidValue;
    const cudaError_t refused = load(kernels()[kernel]);
    if (refused) return refused;
    *blocks = blocks_per_multiprocessor(threads, kernels()[kernel].static_shared, dynamic_shared);
    return cudaSuccess;
  });
}

cudaError_t cudaOccupancyMaxActiveBlocksPerMultiprocessor(int *blocks, const void *kernel, int threads,
                                                          size_t dynamic_shared) {
  return cudaOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(blocks, kernel, threads, dynamic_shared, 0);
}

uint64_t tare_emulator_kernels_run(void) { return kernels_run; }
