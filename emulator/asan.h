/* SPDX-License-Identifier: Apache-2.0 */
/* AddressSanitizer's interface where the build has it, nothing where it has not. */
#ifndef TARE_EMULATOR_ASAN_H
#define TARE_EMULATOR_ASAN_H

#include <cstddef>
#include <cstdint>

#if defined(__SANITIZE_ADDRESS__)
#define TARE_EMULATOR_ASAN 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define TARE_EMULATOR_ASAN 1
#endif
#endif
#ifndef TARE_EMULATOR_ASAN
#define TARE_EMULATOR_ASAN 0
#endif

#if TARE_EMULATOR_ASAN
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif

namespace emulator {

#if TARE_EMULATOR_ASAN
inline void poison(const void *memory, size_t size) { __asan_poison_memory_region(memory, size); }
inline void unpoison(const void *memory, size_t size) { __asan_unpoison_memory_region(memory, size); }
inline void asan_leaving(void **fake, const void *to_bottom, size_t to_size) {
  __sanitizer_start_switch_fiber(fake, to_bottom, to_size);
}
inline void asan_entered(void *fake, const void **from_bottom, size_t *from_size) {
  __sanitizer_finish_switch_fiber(fake, from_bottom, from_size);
}
/** Mapped for the sanitizer's own books, and no program's memory: small numbers look like addresses there. */
inline bool is_asan_shadow(uint64_t address) {
  size_t scale, offset;
  __asan_get_shadow_mapping(&scale, &offset);
  return address >= offset && address < offset + ((uint64_t(1) << 47) >> scale);
}
inline void asan_report_to_stderr() { __sanitizer_set_report_fd(reinterpret_cast<void *>(2)); }
#else
inline bool is_asan_shadow(uint64_t) { return false; }
inline void poison(const void *, size_t) {}
inline void unpoison(const void *, size_t) {}
inline void asan_leaving(void **, const void *, size_t) {}
inline void asan_entered(void *, const void **, size_t *) {}
inline void asan_report_to_stderr() {}
#endif

}  // namespace emulator

#endif
