/* SPDX-License-Identifier: Apache-2.0 */
/* Copies that run ahead: kept by the thread that began them, and done when it waits. See copies.h. */
#include "copies.h"

#include <stdlib.h>
#include <string.h>

namespace emulator {

void start_copy(void *to, const void *from, place at) {
  self->at = at;
  if (reinterpret_cast<uintptr_t>(to) % copy_size || reinterpret_cast<uintptr_t>(from) % copy_size)
    fail("%s:%d: a copy that runs ahead is misaligned: from %p to %p", at.file, at.line, from, to);
  if (random_bits() % 4 == 3) { /* already there; a seed of 0 has none */
    memcpy(to, from, copy_size);
    return;
  }
  fill(to, copy_size);
  self->copies.push_back({to, from, self->copy_groups});
}

int copies_ahead(int most) {
  const char *text = getenv("TARE_EMULATOR_COPIES_AHEAD");
  return text && strcmp(text, "0") == 0 ? 0 : most;
}

void close_copies() { self->copy_groups++; }

void wait_for_copies(unsigned open) {
  auto left = self->copies.begin();
  for (const pending_copy &copy : self->copies) {
    if (copy.group + open < self->copy_groups)
      memcpy(copy.to, copy.from, copy_size);
    else
      *left++ = copy;
  }
  self->copies.erase(left, self->copies.end());
}

}  // namespace emulator
