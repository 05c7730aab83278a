/* SPDX-License-Identifier: Apache-2.0 */
/* What TARE_SHARED is made of in the emulator: a variable's place in the running block's arena. A declaration is known
 * by the address of a static of its own, so each template instance has its own variable, as on a GPU. */
#ifndef TARE_EMULATOR_SHARED_H
#define TARE_EMULATOR_SHARED_H

#include <cstddef>
#include <type_traits>

namespace emulator {

void *shared_variable_at(const void *site, const char *name, size_t size, size_t alignment);
void *dynamic_shared();

template <typename T>
T &shared(const void *site, const char *name) {
  static_assert(std::is_trivially_default_constructible<T>::value, "shared memory is not constructed");
  return *static_cast<T *>(shared_variable_at(site, name, sizeof(T), alignof(T)));
}

}  // namespace emulator

#endif
