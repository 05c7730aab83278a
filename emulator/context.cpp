/* SPDX-License-Identifier: Apache-2.0 */
/* Devices and their contexts: which one a thread has chosen, what is current to it, and which primary contexts exist.
 * As since CUDA 12, cudaSetDevice makes one. Every other call that needs a context makes that of the chosen device. */
#include <cuda.h>
#include <string.h>

#include <memory>
#include <vector>

#include "control.h"
#include "device.h"

struct CUctx_st {
  int device;
};

namespace emulator {

namespace {

constexpr int most_devices = 4;
int devices = 1;
bool is_active[most_devices]; /* the primary context exists */
CUctx_st primary[most_devices] = {{0}, {1}, {2}, {3}};

struct {
  int device = 0; /* what cudaSetDevice was given last */
  std::vector<CUcontext> current;
} thread_local chosen;

bool is_device(int device) { return device >= 0 && device < devices; }

CUcontext activate(int device) {
  is_active[device] = true;
  return &primary[device];
}

void make_current(CUcontext context) {
  if (!chosen.current.empty()) chosen.current.pop_back();
  if (context) chosen.current.push_back(context);
}

CUcontext current() { return chosen.current.empty() ? nullptr : chosen.current.back(); }

/* ---- The driver's calls, by name ---- */

CUresult ctx_get_current(CUcontext *context) {
  *context = current();
  return CUDA_SUCCESS;
}

CUresult ctx_push_current(CUcontext context) {
  if (!context) return CUDA_ERROR_INVALID_CONTEXT;
  chosen.current.push_back(context);
  return CUDA_SUCCESS;
}

CUresult ctx_pop_current(CUcontext *context) {
  if (chosen.current.empty()) return CUDA_ERROR_INVALID_CONTEXT;
  *context = current();
  chosen.current.pop_back();
  return CUDA_SUCCESS;
}

CUresult device_get(CUdevice *device, int number) {
  *device = number;
  return is_device(number) ? CUDA_SUCCESS : CUDA_ERROR_INVALID_DEVICE;
}

CUresult retain(CUcontext *context, CUdevice device) {
  const cudaError_t status = ask("cuDevicePrimaryCtxRetain", [&] {
    if (!is_device(device)) return cudaErrorInvalidDevice;
    *context = activate(device);
    return cudaSuccess;
  });
  return CUresult(status);
}

const struct {
  const char *name;
  void *address;
} driver_calls[] = {{"cuCtxGetCurrent", reinterpret_cast<void *>(ctx_get_current)},
                    {"cuCtxPushCurrent", reinterpret_cast<void *>(ctx_push_current)},
                    {"cuCtxPopCurrent", reinterpret_cast<void *>(ctx_pop_current)},
                    {"cuDeviceGet", reinterpret_cast<void *>(device_get)},
                    {"cuDevicePrimaryCtxRetain", reinterpret_cast<void *>(retain)}};

}  // namespace

int device_count() { return devices; }

int current_device() { return current() ? current()->device : chosen.device; }

void need_context() {
  if (!current()) make_current(activate(chosen.device));
}

}  // namespace emulator

using namespace emulator;

bool tare_emulator_set_devices(int count) {
  if (count < 1 || count > most_devices) return false;
  devices = count;
  memset(is_active, 0, sizeof is_active);
  chosen = {};
  return true;
}

bool tare_emulator_has_context(int device) { return is_device(device) && is_active[device]; }

void *tare_emulator_current_context(void) { return current(); }

void *tare_emulator_make_context(int device) {
  static std::vector<std::unique_ptr<CUctx_st>> all; /* never ended */
  all.push_back(std::make_unique<CUctx_st>(CUctx_st{device}));
  make_current(all.back().get());
  return current();
}

cudaError_t cudaGetDevice(int *device) {
  return ask(__func__, [&] { return device ? (*device = current_device(), cudaSuccess) : cudaErrorInvalidValue; });
}

cudaError_t cudaSetDevice(int device) {
  return ask(__func__, [&] {
    if (!is_device(device)) return cudaErrorInvalidDevice;
    chosen.device = device;
    make_current(activate(device));
    return cudaSuccess;
  });
}

cudaError_t cudaInitDevice(int device, unsigned, unsigned) {
  return ask(__func__, [&] { return is_device(device) ? (activate(device), cudaSuccess) : cudaErrorInvalidDevice; });
}

cudaError_t cudaGetDriverEntryPointByVersion(const char *name, void **address, unsigned, unsigned long long,
                                             cudaDriverEntryPointQueryResult *found) {
  return ask(__func__, [&] {
    if (!name || !address) return cudaErrorInvalidValue;
    *address = nullptr;
    for (const auto &call : driver_calls)
      if (strcmp(call.name, name) == 0) *address = call.address;
    if (found) *found = *address ? cudaDriverEntryPointSuccess : cudaDriverEntryPointSymbolNotFound;
    return cudaSuccess;
  });
}
