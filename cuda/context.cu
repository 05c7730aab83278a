/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Making and ending a CUDA backend: the choice of a GPU, its primary context, the record in its memory, and all kernels
 * loaded. No other call of the backend allocates, loads or waits, except tare_context_synchronize and cuBLAS's first.
 *
 * Another GPU than the caller's is made current by the driver's calls. cudaSetDevice cannot be undone: since CUDA 12 it
 * makes a context on the GPU that it is given, so that putting the caller's device back would make one there.
 */
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "backend.cuh"
#include "masks.cuh"

extern "C" {
#include "core/cuda.h"
}

namespace tare {

namespace {

/* ---- The driver's calls ------------------------------------------------------------------------------------------ */

template <typename Function>
cudaError_t find_driver_call(const char *name, Function *place) {
  cudaDriverEntryPointQueryResult found = cudaDriverEntryPointSymbolNotFound;
  void *address = nullptr;
#if CUDART_VERSION >= 12050
  const cudaError_t status = cudaGetDriverEntryPointByVersion(name, &address, 12000, cudaEnableDefault, &found);
#else
  const cudaError_t status = cudaGetDriverEntryPoint(name, &address, cudaEnableDefault, &found);
#endif
  *place = reinterpret_cast<Function>(address);
  if (status != cudaSuccess) return status;
  return found == cudaDriverEntryPointSuccess && address ? cudaSuccess : cudaErrorSymbolNotFound;
}

cudaError_t find_driver_calls(driver_calls *calls) {
  cudaError_t status = find_driver_call("cuCtxGetCurrent", &calls->CtxGetCurrent);
  if (status == cudaSuccess) status = find_driver_call("cuCtxPushCurrent", &calls->CtxPushCurrent);
  if (status == cudaSuccess) status = find_driver_call("cuCtxPopCurrent", &calls->CtxPopCurrent);
  if (status == cudaSuccess) status = find_driver_call("cuDeviceGet", &calls->DeviceGet);
  return status == cudaSuccess ? find_driver_call("cuDevicePrimaryCtxRetain", &calls->DevicePrimaryCtxRetain) : status;
}

/** The GPU's primary context, which every part of a process that uses CUDA's runtime shares. It is never released: the
 *  runtime keeps it too, and has kernels in it. */
cudaError_t retain_primary_context(backend *self) {
  CUdevice device = 0;
  CUresult status = self->driver.DeviceGet(&device, self->device);
  if (status == CUDA_SUCCESS) status = self->driver.DevicePrimaryCtxRetain(&self->primary, device);
  return cudaError_t(status); /* the same numbers */
}

/* ---- Which GPU --------------------------------------------------------------------------------------------------- */

/** The first driver that runs this library: that of its CUDA's major version, or in CUDA 12 the first that takes more
 *  than 4 KB of kernel parameters. */
constexpr int least_driver = CUDART_VERSION >= 13000 ? CUDART_VERSION / 1000 * 1000 : 12010;
constexpr const char *least_driver_name = CUDART_VERSION >= 13000 ? "580" : "530";

tare_status no_gpu(cudaError_t status, tare_error *error) {
  cudaGetLastError();
  if (status == cudaErrorInsufficientDriver || status == cudaErrorStubLibrary)
    return tare_fail(error, TARE_STATUS_NO_DRIVER, "no NVIDIA driver is installed (libcuda.so.1 was not found)");
  if (status == cudaErrorNoDevice || status == cudaSuccess)
    return tare_fail(error, TARE_STATUS_NO_DEVICE,
                     "the NVIDIA driver works, but it shows no GPU (check CUDA_VISIBLE_DEVICES)");
  return cuda_failed(status, "cudaGetDeviceCount", error);
}

tare_status choose_device(const tare_context_options *options, int *device, tare_error *error) {
  int count = 0, version = 0;
  if (cudaDriverGetVersion(&version) == cudaSuccess && version > 0 && version < least_driver)
    return tare_fail(error, TARE_STATUS_DRIVER_TOO_OLD,
                     "the NVIDIA driver is for CUDA %d.%d; this library needs one for CUDA %d.%d (driver %s or newer)",
                     version / 1000, version % 1000 / 10, least_driver / 1000, least_driver % 1000 / 10,
                     least_driver_name);
  cudaError_t status = cudaGetDeviceCount(&count);
  if (status != cudaSuccess || count == 0) return no_gpu(status, error);
  if (options->device_index >= count)
    return tare_fail(error, TARE_STATUS_NO_DEVICE, "options->device_index is %d; this machine has GPUs 0..%d",
                     options->device_index, count - 1);
  *device = options->device_index;
  if (*device < 0) status = cudaGetDevice(device);
  return status == cudaSuccess ? TARE_STATUS_OK : cuda_failed(status, "cudaGetDevice", error);
}

cudaError_t read_attributes(backend *self) {
  const struct {
    cudaDeviceAttr which;
    int *place;
  } attributes[] = {{cudaDevAttrMultiProcessorCount, &self->multiprocessors},
                    {cudaDevAttrL2CacheSize, &self->l2_bytes},
                    {cudaDevAttrCooperativeLaunch, &self->cooperative},
                    {cudaDevAttrComputeCapabilityMajor, &self->major},
                    {cudaDevAttrComputeCapabilityMinor, &self->minor}};
  cudaError_t status = cudaSuccess;
  for (const auto &a : attributes)
    if (status == cudaSuccess) status = cudaDeviceGetAttribute(a.place, a.which, self->device);
  return status;
}

/* ---- What a context holds ---------------------------------------------------------------------------------------- */

cudaError_t load_all_kernels() {
  cudaError_t (*const files[])() = {load_class_balance,   load_norms,        load_class_sums,
                                    load_count,           load_density,      load_flags,
                                    load_linear,          load_selection,    load_sigmoid_f32,
                                    load_sigmoid_f16,     load_sigmoid_bf16, load_softmax_f32,
                                    load_softmax_f16,     load_softmax_bf16, load_ghm_f32,
                                    load_ghm_f16,         load_hard_rows,    load_gradient_balance,
                                    load_ghm_bf16,        load_target_sums,  load_level_losses,
                                    load_scale_gradients, load_masks};
  cudaError_t status = cudaSuccess;
  for (const auto load : files)
    if (status == cudaSuccess) status = load();
  return status;
}

/** Errors of CUDA that mean: the library has neither machine code nor usable PTX for this GPU. */
bool says_no_kernel(cudaError_t status) {
  return status == cudaErrorNoKernelImageForDevice || status == cudaErrorInvalidDeviceFunction ||
         status == cudaErrorInvalidKernelImage || status == cudaErrorUnsupportedPtxVersion ||
         status == cudaErrorInvalidPtx || status == cudaErrorJitCompilerNotFound ||
         status == cudaErrorJitCompilationDisabled;
}

tare_status refuse_kernels(const backend *self, cudaError_t status, tare_error *error) {
  if (!says_no_kernel(status)) return cuda_failed(status, "loading kernels", error);
  cudaGetLastError();
  return tare_fail(error, TARE_STATUS_NO_DEVICE, "GPU %d (sm_%d%d) is not supported by this build: %s", self->device,
                   self->major, self->minor, cudaGetErrorString(status));
}

/** By a stream of its own and waited for: later launches go to streams that wait for no other. */
cudaError_t write_record(device_record *record) {
  device_record fresh;
  memset(static_cast<void *>(&fresh), 0, sizeof fresh);
  fresh.first_invalid = fresh.first_target = ~uint64_t(0);
  fresh.one = 1;
  cudaStream_t stream = nullptr;
  cudaError_t status = cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking);
  if (status != cudaSuccess) return status;
  status = cudaMemcpyAsync(record, &fresh, sizeof fresh, cudaMemcpyHostToDevice, stream);
  const cudaError_t waited = cudaStreamSynchronize(stream), destroyed = cudaStreamDestroy(stream);
  if (status == cudaSuccess) status = waited;
  return status == cudaSuccess ? destroyed : status;
}

tare_status set_up(backend *self, tare_error *error) {
  const size_t bytes = sizeof(device_record) + most_partials * sizeof(double) + state_bytes + level_loss_bytes;
  cudaError_t status = load_all_kernels();
  if (status != cudaSuccess) return refuse_kernels(self, status, error);
  status = cudaMalloc(reinterpret_cast<void **>(&self->record), bytes);
  if (status == cudaErrorMemoryAllocation) {
    cudaGetLastError();
    return tare_fail(error, TARE_STATUS_OUT_OF_MEMORY, "no GPU memory for a context (%zu bytes)", bytes);
  }
  if (status != cudaSuccess) return cuda_failed(status, "cudaMalloc", error);
  status = write_record(self->record);
  return status == cudaSuccess ? TARE_STATUS_OK : cuda_failed(status, "writing a context's record", error);
}

void describe(tare_backend *base, tare_context_description *description) {
  const backend *self = reinterpret_cast<const backend *>(base);
  description->device = TARE_DEVICE_CUDA;
  description->device_index = self->device;
  snprintf(description->instruction_set, sizeof description->instruction_set, "sm_%d%d", self->major, self->minor);
  cudaDeviceProp properties; /* takes milliseconds: only here */
  if (cudaGetDeviceProperties(&properties, self->device) == cudaSuccess)
    snprintf(description->device_name, sizeof description->device_name, "%.127s", properties.name);
  else
    cudaGetLastError();
}

void destroy(tare_backend *base) {
  backend *self = reinterpret_cast<backend *>(base);
  {
    const device_guard guard(self);
    const relaxed_capture relaxed;
    if (self->record && cudaFree(self->record) != cudaSuccess) cudaGetLastError();
  }
  free(self);
}

tare_status open(backend *self, tare_error *error) {
  cudaError_t status = read_attributes(self);
  if (status != cudaSuccess) return cuda_failed(status, "cudaDeviceGetAttribute", error);
  status = find_driver_calls(&self->driver);
  if (status != cudaSuccess) return cuda_failed(status, "finding the driver's calls", error);
  status = retain_primary_context(self);
  if (status != cudaSuccess) return cuda_failed(status, "making a context on the GPU", error);
  const device_guard guard(self);
  if (guard.status != cudaSuccess) return cuda_failed(guard.status, making_current, error);
  const relaxed_capture relaxed;
  return set_up(self, error);
}

}  // namespace

/* ---- Guards ------------------------------------------------------------------------------------------------------ */

device_guard::device_guard(const backend *self) : status(cudaSuccess), driver_(self->driver) {
  CUcontext current = nullptr;
  if (!self->primary) return; /* it could not be made, and there is nothing on the GPU */
  CUresult answer = driver_.CtxGetCurrent(&current);
  if (answer == CUDA_SUCCESS && current != self->primary) {
    answer = driver_.CtxPushCurrent(self->primary);
    pushed_ = answer == CUDA_SUCCESS;
  }
  status = cudaError_t(answer);
}

device_guard::~device_guard() {
  CUcontext ours;
  if (pushed_) driver_.CtxPopCurrent(&ours);
}

/* A word of the thread is exchanged: it fails only on a device that is lost, which the next call tells. */
relaxed_capture::relaxed_capture() {
  if (cudaThreadExchangeStreamCaptureMode(&mode_) != cudaSuccess) cudaGetLastError();
}
relaxed_capture::~relaxed_capture() {
  if (cudaThreadExchangeStreamCaptureMode(&mode_) != cudaSuccess) cudaGetLastError();
}

}  // namespace tare

extern "C" tare_status tare_cuda_backend_create(const tare_context_options *options, tare_backend **made,
                                                tare_error *error) {
  using namespace tare;
  int device = 0;
  tare_status status = choose_device(options, &device, error);
  if (status) return status;
  backend *self = static_cast<backend *>(calloc(1, sizeof *self));
  if (!self)
    return tare_fail(error, TARE_STATUS_OUT_OF_MEMORY, "no memory for a CUDA context (%zu bytes)", sizeof *self);
  self->base = {destroy,           describe,           needs,           evaluate,        label_counts,
                ghm_histogram,     ghm_density_update, scale_gradients, balance_classes, evaluate_masks,
                balance_gradients, tare::check,        clear,           linear_needs,    linear_evaluate,
                linear_histogram};
  self->device = device;
  status = open(self, error);
  if (status) {
    destroy(&self->base);
    return status;
  }
  *made = &self->base;
  return TARE_STATUS_OK;
}
