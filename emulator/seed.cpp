/* SPDX-License-Identifier: Apache-2.0 */
/* TARE_EMULATOR_SEED decides the order of threads and blocks, when queued work runs, what fresh memory holds, and how
 * approximations err.
 * 0, the default: threads in order, work as late as its stream allows, and memory full of NaNs. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "control.h"
#include "device.h"
#include "intrinsics.h"
#include "thread.h"

namespace emulator {

namespace {

uint64_t from_environment() {
  const char *text = getenv("TARE_EMULATOR_SEED");
  return text ? strtoull(text, nullptr, 0) : 0;
}

uint64_t chosen = from_environment();
uint64_t position = chosen;

/* splitmix64 (Steele, Lea, Flood 2014) */
uint64_t next(uint64_t &at) {
  uint64_t z = at += 0x9e3779b97f4a7c15u;
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
  return z ^ (z >> 31);
}

}  // namespace

uint64_t seed() { return chosen; }

uint64_t random_bits() { return chosen ? next(position) : 0; }

float within(double exact, float argument, double ulps) {
  int exponent;
  const double mantissa = fabs(frexp(exact, &exponent));
  if (!(mantissa > 0.5 && mantissa < 1.0)) return float(exact);
  uint64_t at = chosen ^ uint64_t(bit_cast<unsigned>(argument)) << 32;
  const double part = double(next(at) >> 11) * 0x1p-52 - 1; /* cubed, so that most results are the nearest */
  return float(exact + part * part * part * (ulps - 0.5) * ldexp(1.0, exponent - 24)); /* rounding takes half an ulp */
}

void fill(void *memory, size_t size) {
  if (chosen == 0) {
    memset(memory, 0xff, size);
    return;
  }
  uint64_t at = position;
  uint64_t word = 0;
  char *byte = static_cast<char *>(memory);
  for (size_t done = 0; done < size; done += sizeof word) {
    word = next(at) | 0x0001000100010001u; /* no half, no integer and no float is zero */
    memcpy(byte + done, &word, size - done < sizeof word ? size - done : sizeof word);
  }
  position = at;
}

}  // namespace emulator

extern "C" void tare_emulator_set_seed(uint64_t seed) {
  const auto held = emulator::one_thread_alone();
  emulator::wait_for_all(); /* what was queued under the old seed */
  emulator::chosen = emulator::position = seed;
}
