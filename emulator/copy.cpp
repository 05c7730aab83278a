/* SPDX-License-Identifier: Apache-2.0 */
/* Copies and fills, with the direction and the ends of every range checked. */
#include <string.h>

#include <memory>
#include <vector>

#include "device.h"

namespace emulator {

namespace {

cudaError_t check_copy(const void *to, const void *from, size_t size, cudaMemcpyKind &kind) {
  const bool to_device = kind_of(to, size) == memory::device, from_device = kind_of(from, size) == memory::device;
  if (kind_of(to, size) == memory::unknown || kind_of(from, size) == memory::unknown) return cudaErrorInvalidValue;
  const cudaMemcpyKind actual = to_device ? (from_device ? cudaMemcpyDeviceToDevice : cudaMemcpyHostToDevice)
                                          : (from_device ? cudaMemcpyDeviceToHost : cudaMemcpyHostToHost);
  if (kind != cudaMemcpyDefault && kind != actual)
    return kind > cudaMemcpyDefault ? cudaErrorInvalidMemcpyDirection : cudaErrorInvalidValue;
  kind = actual;
  return cudaSuccess;
}

cudaError_t copy(void *to, const void *from, size_t size, cudaMemcpyKind kind, cudaStream_t stream) {
  if (size == 0) return cudaSuccess;
  const cudaError_t status = check_copy(to, from, size, kind);
  if (status) return status;
  /* Pageable memory is copied before the call returns. A captured copy reads it when the graph runs. */
  std::shared_ptr<std::vector<char>> staged;
  if (kind == cudaMemcpyHostToDevice && kind_of(from, size) == memory::pageable && !capturing(stream)) {
    const char *bytes = static_cast<const char *>(from);
    staged = std::make_shared<std::vector<char>>(bytes, bytes + size);
  }
  return submit(stream, {"memcpy", [=] {
                           open_device_memory(every_device);
                           memmove(to, staged ? staged->data() : from, size);
                           close_device_memory();
                         }});
}

cudaError_t set(void *to, int value, size_t size, cudaStream_t stream) {
  if (size == 0) return cudaSuccess;
  const memory kind = kind_of(to, size);
  if (kind != memory::device && kind != memory::pinned) return cudaErrorInvalidValue;
  return submit(stream, {"memset", [=] {
                           open_device_memory(every_device);
                           memset(to, value, size);
                           close_device_memory();
                         }});
}

}  // namespace

}  // namespace emulator

using namespace emulator;

/* From pageable memory both return when the bytes have been read, which is before they are there; into it, when they
 * are there. Between pinned memory and a device the first returns at once, the second when they are there. */
cudaError_t cudaMemcpyAsync(void *to, const void *from, size_t size, cudaMemcpyKind kind, cudaStream_t stream) {
  return api(__func__, [&] {
    const cudaError_t status = copy(to, from, size, kind, stream);
    const bool returns_when_done = !capturing(stream) && kind_of(to, size) == memory::pageable;
    return status || !returns_when_done ? status : wait_for(stream);
  });
}

cudaError_t cudaMemcpy(void *to, const void *from, size_t size, cudaMemcpyKind kind) {
  return api(__func__, [&] {
    const bool to_device = kind_of(to, size) == memory::device;
    const bool returns_early = to_device && kind_of(from, size) != memory::pinned;
    cudaError_t status = to_device && kind_of(from, size) == memory::pageable ? wait_for(nullptr) : cudaSuccess;
    if (!status) status = copy(to, from, size, kind, nullptr);
    return status || returns_early ? status : wait_for(nullptr);
  });
}

cudaError_t cudaMemsetAsync(void *to, int value, size_t size, cudaStream_t stream) {
  return api(__func__, [&] { return set(to, value, size, stream); });
}

cudaError_t cudaMemset(void *to, int value, size_t size) {
  return api(__func__, [&] { return set(to, value, size, nullptr); });
}
