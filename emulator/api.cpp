/* SPDX-License-Identifier: Apache-2.0 */
/* The frame of every runtime call: one lock, a missing device, planned and sticky errors, and the last error. */
#include <mutex>
#include <string>

#include "control.h"
#include "device.h"

namespace emulator {

namespace {

std::recursive_mutex lock;
thread_local cudaError_t last = cudaSuccess;
cudaError_t sticky = cudaSuccess; /* the device is lost: every call answers this */

struct {
  std::string call;
  unsigned successes = 0;
  cudaError_t error = cudaSuccess;
} planned;

bool is_sticky(cudaError_t e) {
  switch (e) {
    case cudaErrorIllegalAddress:
    case cudaErrorLaunchTimeout:
    case cudaErrorAssert:
    case cudaErrorHardwareStackError:
    case cudaErrorIllegalInstruction:
    case cudaErrorMisalignedAddress:
    case cudaErrorInvalidAddressSpace:
    case cudaErrorInvalidPc:
    case cudaErrorLaunchFailure:
    case cudaErrorECCUncorrectable:
      return true;
    default:
      return false;
  }
}

cudaError_t planned_error(const char *call) {
  if (planned.error == cudaSuccess || (!planned.call.empty() && planned.call != call)) return cudaSuccess;
  if (planned.successes-- > 0) return cudaSuccess;
  const cudaError_t e = planned.error;
  planned.error = cudaSuccess;
  return e;
}

}  // namespace

std::unique_lock<std::recursive_mutex> one_thread_alone() { return std::unique_lock<std::recursive_mutex>(lock); }

cudaError_t ask(const char *call, const std::function<cudaError_t()> &work) {
  std::lock_guard<std::recursive_mutex> held(lock);
  cudaError_t e = missing_device();
  if (!e) e = sticky;
  if (!e) e = planned_error(call);
  if (!e) e = work();
  if (is_sticky(e)) sticky = e;
  if (e != cudaSuccess && e != cudaErrorNotReady) last = e; /* "not ready" is an answer, no error */
  return e;
}

cudaError_t api(const char *call, const std::function<cudaError_t()> &work) {
  return ask(call, [&] {
    need_context();
    return work();
  });
}

}  // namespace emulator

using namespace emulator;

void tare_emulator_fail(const char *call, unsigned successes, cudaError_t error) { planned = {call, successes, error}; }

bool tare_emulator_failed(void) {
  const bool done = planned.error == cudaSuccess;
  planned.error = cudaSuccess;
  return done;
}

void tare_emulator_recover(void) {
  sticky = last = cudaSuccess;
  planned.error = cudaSuccess;
}

cudaError_t cudaGetLastError(void) {
  const cudaError_t e = sticky ? sticky : last;
  last = cudaSuccess;
  return e;
}

cudaError_t cudaPeekAtLastError(void) { return sticky ? sticky : last; }

#define ERRORS(X)                                                                                                   \
  X(cudaSuccess, "no error")                                                                                        \
  X(cudaErrorInvalidValue, "invalid argument")                                                                      \
  X(cudaErrorMemoryAllocation, "out of memory")                                                                     \
  X(cudaErrorInitializationError, "initialization error")                                                           \
  X(cudaErrorCudartUnloading, "driver shutting down")                                                               \
  X(cudaErrorInvalidConfiguration, "invalid configuration argument")                                                \
  X(cudaErrorInvalidSymbol, "invalid device symbol")                                                                \
  X(cudaErrorInvalidDevicePointer, "invalid device pointer")                                                        \
  X(cudaErrorInvalidMemcpyDirection, "invalid copy direction for memcpy")                                           \
  X(cudaErrorStubLibrary, "CUDA driver is a stub library")                                                          \
  X(cudaErrorInsufficientDriver, "CUDA driver version is insufficient for CUDA runtime version")                    \
  X(cudaErrorInvalidDeviceFunction, "invalid device function")                                                      \
  X(cudaErrorNoDevice, "no CUDA-capable device is detected")                                                        \
  X(cudaErrorInvalidDevice, "invalid device ordinal")                                                               \
  X(cudaErrorInvalidKernelImage, "device kernel image is invalid")                                                  \
  X(cudaErrorNoKernelImageForDevice, "no kernel image is available for execution on the device")                    \
  X(cudaErrorECCUncorrectable, "uncorrectable ECC error encountered")                                               \
  X(cudaErrorUnsupportedPtxVersion, "the provided PTX was compiled with an unsupported toolchain.")                 \
  X(cudaErrorInvalidResourceHandle, "invalid resource handle")                                                      \
  X(cudaErrorIllegalState, "the operation cannot be performed in the present state")                                \
  X(cudaErrorNotReady, "device not ready")                                                                          \
  X(cudaErrorIllegalAddress, "an illegal memory access was encountered")                                            \
  X(cudaErrorLaunchOutOfResources, "too many resources requested for launch")                                       \
  X(cudaErrorLaunchTimeout, "the launch timed out and was terminated")                                              \
  X(cudaErrorAssert, "device-side assert triggered")                                                                \
  X(cudaErrorHardwareStackError, "hardware stack error")                                                            \
  X(cudaErrorIllegalInstruction, "an illegal instruction was encountered")                                          \
  X(cudaErrorMisalignedAddress, "misaligned address")                                                               \
  X(cudaErrorInvalidAddressSpace, "operation not supported on global/shared address space")                         \
  X(cudaErrorInvalidPc, "invalid program counter")                                                                  \
  X(cudaErrorLaunchFailure, "unspecified launch failure")                                                           \
  X(cudaErrorCooperativeLaunchTooLarge, "too many blocks in cooperative launch")                                    \
  X(cudaErrorNotPermitted, "operation not permitted")                                                               \
  X(cudaErrorNotSupported, "operation not supported")                                                               \
  X(cudaErrorStreamCaptureUnsupported, "operation not permitted when stream is capturing")                          \
  X(cudaErrorStreamCaptureInvalidated, "operation failed due to a previous error during capture")                   \
  X(cudaErrorStreamCaptureUnmatched, "capture was not initiated in this stream")                                    \
  X(cudaErrorStreamCaptureUnjoined, "capturing stream has unjoined work")                                           \
  X(cudaErrorStreamCaptureImplicit, "operation would make the legacy stream depend on a capturing blocking stream") \
  X(cudaErrorStreamCaptureWrongThread, "attempt to terminate a thread-local capture sequence from another thread")  \
  X(cudaErrorStreamCaptureIsolation, "dependency created on uncaptured work in another stream")                     \
  X(cudaErrorStreamCaptureMerge, "operation would result in a merge of separate capture sequences")                 \
  X(cudaErrorCapturedEvent, "operation not permitted on an event last recorded in a capturing stream")              \
  X(cudaErrorSymbolNotFound, "named symbol not found")                                                              \
  X(cudaErrorDevicesUnavailable, "CUDA-capable device(s) is/are busy or unavailable")                               \
  X(cudaErrorUnknown, "unknown error")

const char *cudaGetErrorName(cudaError_t error) {
#define NAME(value, text) \
  if (error == value) return #value;
  ERRORS(NAME)
  return "unrecognized error code";
}

const char *cudaGetErrorString(cudaError_t error) {
#define TEXT(value, text) \
  if (error == value) return text;
  ERRORS(TEXT)
  return "unrecognized error code";
}
