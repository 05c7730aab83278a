/* SPDX-License-Identifier: Apache-2.0 */
/* The emulated device: profiles, their attributes and properties, and a machine without a device or driver. "tiny" has
 * few of everything, so that every path that is chosen by size runs at small sizes. */
#include "device.h"

#include <stdlib.h>
#include <string.h>

#include <algorithm>
#include <utility>

#include "control.h"
#include "thread.h"

namespace emulator {

namespace {

constexpr device_profile profiles[] = {
    {"tiny", "Emulated tiny GPU", 7, 5, 2, 1024, 16, 48 << 10, 64 << 10, 64 << 10, 256 << 10, size_t(64) << 30},
    {"cache", "Emulated GPU of much cache", 8, 9, 2, 1024, 16, 48 << 10, 64 << 10, 64 << 10, 16 << 20,
     size_t(64) << 30},
    {"h100", "Emulated H100", 9, 0, 132, 2048, 32, 48 << 10, 227 << 10, 228 << 10, 50 << 20, size_t(80) << 30},
};

const device_profile *find_profile(const char *name) {
  for (const device_profile &p : profiles)
    if (strcmp(p.name, name) == 0) return &p;
  return nullptr;
}

const device_profile *initial_profile() {
  const char *name = getenv("TARE_EMULATOR_PROFILE");
  const device_profile *p = find_profile(name && *name ? name : "tiny");
  if (!p) fail("TARE_EMULATOR_PROFILE=%s: the profiles are tiny, cache and h100", name);
  return p;
}

const device_profile *&chosen() {
  static const device_profile *p = initial_profile();
  return p;
}

enum class no_device { works, driver, old, none, unknown };

no_device parse(const char *why) {
  if (!why || !*why) return no_device::works;
  if (strcmp(why, "driver") == 0) return no_device::driver;
  if (strcmp(why, "old") == 0) return no_device::old;
  if (strcmp(why, "none") == 0) return no_device::none;
  return no_device::unknown;
}

no_device &missing() {
  static no_device why = parse(getenv("TARE_EMULATOR_NO_DEVICE"));
  if (why == no_device::unknown) fail("TARE_EMULATOR_NO_DEVICE is none of driver, old, none");
  return why;
}

cudaError_t attribute(int *value, cudaDeviceAttr which) {
  const device_profile &p = profile();
  const std::pair<cudaDeviceAttr, int> attributes[] = {
      {cudaDevAttrComputeCapabilityMajor, p.major},
      {cudaDevAttrComputeCapabilityMinor, p.minor},
      {cudaDevAttrMultiProcessorCount, p.multiprocessors},
      {cudaDevAttrWarpSize, warp_size},
      {cudaDevAttrMaxThreadsPerBlock, 1024},
      {cudaDevAttrMaxBlockDimX, 1024},
      {cudaDevAttrMaxBlockDimY, 1024},
      {cudaDevAttrMaxBlockDimZ, 64},
      {cudaDevAttrMaxGridDimX, 0x7fffffff},
      {cudaDevAttrMaxGridDimY, 65535},
      {cudaDevAttrMaxGridDimZ, 65535},
      {cudaDevAttrMaxSharedMemoryPerBlock, int(p.shared_per_block)},
      {cudaDevAttrMaxSharedMemoryPerBlockOptin, int(p.shared_per_block_optin)},
      {cudaDevAttrMaxSharedMemoryPerMultiprocessor, int(p.shared_per_multiprocessor)},
      {cudaDevAttrReservedSharedMemoryPerBlock, p.major >= 8 ? 1024 : 0},
      {cudaDevAttrMaxThreadsPerMultiProcessor, p.threads_per_multiprocessor},
      {cudaDevAttrMaxBlocksPerMultiprocessor, p.blocks_per_multiprocessor},
      {cudaDevAttrMaxRegistersPerBlock, 65536},
      {cudaDevAttrMaxRegistersPerMultiprocessor, 65536},
      {cudaDevAttrL2CacheSize, p.l2_bytes},
      {cudaDevAttrCooperativeLaunch, 1},
      {cudaDevAttrUnifiedAddressing, 1},
      {cudaDevAttrConcurrentKernels, 1},
      {cudaDevAttrMemoryPoolsSupported, 1},
      {cudaDevAttrClockRate, 1000000},
      {cudaDevAttrMemoryClockRate, 1000000},
      {cudaDevAttrGlobalMemoryBusWidth, 5120},
      {cudaDevAttrIntegrated, 0},
      {cudaDevAttrManagedMemory, 0},
      {cudaDevAttrPageableMemoryAccess, 0},
  };
  for (const auto &a : attributes)
    if (a.first == which) return *value = a.second, cudaSuccess;
  return cudaErrorInvalidValue;
}

int value_of(cudaDeviceAttr which) {
  int value = 0;
  attribute(&value, which);
  return value;
}

void fill_properties(cudaDeviceProp &to) {
  const device_profile &p = profile();
  to = {};
  strncpy(to.name, p.device_name, sizeof to.name - 1);
  to.totalGlobalMem = p.memory;
  to.sharedMemPerBlock = p.shared_per_block;
  to.sharedMemPerBlockOptin = p.shared_per_block_optin;
  to.sharedMemPerMultiprocessor = p.shared_per_multiprocessor;
  to.reservedSharedMemPerBlock = size_t(value_of(cudaDevAttrReservedSharedMemoryPerBlock));
  to.regsPerBlock = to.regsPerMultiprocessor = 65536;
  to.warpSize = warp_size;
  to.maxThreadsPerBlock = to.maxThreadsDim[0] = to.maxThreadsDim[1] = 1024;
  to.maxThreadsDim[2] = 64;
  to.maxGridSize[0] = 0x7fffffff;
  to.maxGridSize[1] = to.maxGridSize[2] = 65535;
  to.totalConstMem = 65536;
  to.major = p.major;
  to.minor = p.minor;
  to.multiProcessorCount = p.multiprocessors;
  to.concurrentKernels = to.unifiedAddressing = to.cooperativeLaunch = to.memoryPoolsSupported = 1;
  to.memoryBusWidth = 5120;
  to.l2CacheSize = p.l2_bytes;
  to.maxThreadsPerMultiProcessor = p.threads_per_multiprocessor;
  to.maxBlocksPerMultiProcessor = p.blocks_per_multiprocessor;
}

}  // namespace

const device_profile &profile() { return *chosen(); }

cudaError_t missing_device() {
  switch (missing()) {
    case no_device::driver:
    case no_device::old:
      return cudaErrorInsufficientDriver;
    case no_device::none:
      return cudaErrorNoDevice;
    default:
      return cudaSuccess;
  }
}

/* Registers are not known here: a GPU may fit fewer. */
int blocks_per_multiprocessor(int threads, size_t static_shared, size_t dynamic_shared) {
  const device_profile &p = profile();
  const int whole_warps = (threads + int(warp_size) - 1) / int(warp_size) * int(warp_size);
  const size_t bytes = static_shared + dynamic_shared + size_t(value_of(cudaDevAttrReservedSharedMemoryPerBlock));
  int fit = std::min(p.blocks_per_multiprocessor, p.threads_per_multiprocessor / whole_warps);
  if (bytes > 0) fit = std::min(fit, int(p.shared_per_multiprocessor / bytes));
  return threads > 1024 ? 0 : fit;
}

}  // namespace emulator

using namespace emulator;

bool tare_emulator_set_profile(const char *name) {
  const device_profile *p = find_profile(name);
  if (p) chosen() = p;
  return p != nullptr;
}

bool tare_emulator_set_no_device(const char *why) {
  if (parse(why) == no_device::unknown) return false;
  missing() = parse(why);
  return true;
}

cudaError_t cudaGetDeviceCount(int *count) {
  if (count) *count = 0; /* CUDA writes it even when it fails */
  return ask(__func__, [&] {
    if (!count) return cudaErrorInvalidValue;
    *count = device_count();
    return cudaSuccess;
  });
}

/* These two answer without a driver as well. */
cudaError_t cudaDriverGetVersion(int *version) {
  if (!version) return cudaErrorInvalidValue;
  *version = missing() == no_device::driver ? 0 : missing() == no_device::old ? 12040 : CUDART_VERSION;
  return cudaSuccess;
}

cudaError_t cudaRuntimeGetVersion(int *version) {
  if (!version) return cudaErrorInvalidValue;
  *version = CUDART_VERSION;
  return cudaSuccess;
}

cudaError_t cudaDeviceGetAttribute(int *value, cudaDeviceAttr which, int device) {
  return ask(__func__, [&] {
    if (device < 0 || device >= device_count()) return cudaErrorInvalidDevice;
    return value ? attribute(value, which) : cudaErrorInvalidValue;
  });
}

cudaError_t cudaGetDeviceProperties(cudaDeviceProp *properties, int device) {
  return ask(__func__, [&] {
    if (device < 0 || device >= device_count()) return cudaErrorInvalidDevice;
    if (!properties) return cudaErrorInvalidValue;
    fill_properties(*properties);
    return cudaSuccess;
  });
}

cudaError_t cudaDeviceGetPCIBusId(char *text, int size, int device) {
  return ask(__func__, [&] {
    if (device < 0 || device >= device_count()) return cudaErrorInvalidDevice;
    if (!text || size < 13) return cudaErrorInvalidValue;
    strcpy(text, "0000:00:00.0");
    return cudaSuccess;
  });
}
