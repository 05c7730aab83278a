/* SPDX-License-Identifier: Apache-2.0 */
/* Launching. A kernel's address says nothing of its parameters, so the typed calls below note them down; the C call
 * cudaLaunchKernelExC(config, const void *, void **) then knows any kernel that was launched, or named with
 * TARE_KERNEL (cuda/device.cuh), before. <<<>>> is no C++ and is not emulated. */
#ifndef TARE_EMULATOR_LAUNCH_H
#define TARE_EMULATOR_LAUNCH_H

#include <cuda_runtime_api.h>

#include <cstddef>
#include <functional>
#include <tuple>
#include <type_traits>
#include <utility>
#include <vector>

namespace emulator {

/* Copies the arguments, as a launch does, and gives what one thread does. */
using binder = std::function<void()> (*)(const void *kernel, void **arguments);

void note_kernel(const void *kernel, binder bind, std::vector<size_t> sizes);

template <typename... P, size_t... I>
std::function<void()> bind_at(const void *kernel, void **arguments, std::index_sequence<I...>) {
  void (*const typed)(P...) = reinterpret_cast<void (*)(P...)>(reinterpret_cast<size_t>(kernel));
  std::tuple<std::remove_cv_t<P>...> copies(*static_cast<std::remove_cv_t<P> *>(arguments[I])...);
  return [typed, copies] { std::apply(typed, copies); };
}

template <typename... P>
std::function<void()> bind(const void *kernel, void **arguments) {
  return bind_at<P...>(kernel, arguments, std::index_sequence_for<P...>());
}

template <typename... P>
const void *note(void (*kernel)(P...)) {
  static_assert((std::is_trivially_copyable<P>::value && ...), "kernel parameters are copied as bytes");
  static_assert((sizeof(P) + ... + 0) <= 32764, "more kernel parameters than CUDA allows");
  const void *address = reinterpret_cast<const void *>(kernel);
  note_kernel(address, bind<P...>, {sizeof(P)...});
  return address;
}

}  // namespace emulator

template <typename... P, typename... A>
cudaError_t cudaLaunchKernelEx(const cudaLaunchConfig_t *config, void (*kernel)(P...), A &&...given) {
  return [&](std::remove_cv_t<P>... arguments) {
    void *pointers[] = {static_cast<void *>(&arguments)..., nullptr};
    return ::cudaLaunchKernelExC(config, emulator::note(kernel), pointers);
  }(std::forward<A>(given)...);
}

template <typename... P>
cudaError_t cudaLaunchKernelExC(const cudaLaunchConfig_t *config, void (*kernel)(P...), void **arguments) {
  return ::cudaLaunchKernelExC(config, emulator::note(kernel), arguments);
}

template <typename... P>
cudaError_t cudaLaunchKernel(void (*kernel)(P...), dim3 grid, dim3 block, void **arguments, size_t shared = 0,
                             cudaStream_t stream = nullptr) {
  return ::cudaLaunchKernel(emulator::note(kernel), grid, block, arguments, shared, stream);
}

template <typename... P>
cudaError_t cudaLaunchCooperativeKernel(void (*kernel)(P...), dim3 grid, dim3 block, void **arguments,
                                        size_t shared = 0, cudaStream_t stream = nullptr) {
  return ::cudaLaunchCooperativeKernel(emulator::note(kernel), grid, block, arguments, shared, stream);
}

#endif
