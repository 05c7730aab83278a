/* SPDX-License-Identifier: Apache-2.0 */
/* The emulator's own tests, a program by itself. Prints how many checks ran. */
#include <stdio.h>

#include "control.h"
#include "test.h"

static unsigned checks = 0, failures = 0;

void check(bool good, const char *what, const char *file, int line) {
  checks++;
  if (good) return;
  failures++;
  fprintf(stderr, "%s:%d: %s\n", file, line, what);
}

int main() {
  test_planted(); /* first, while this process is small to fork */
  test_runtime_first();
  for (uint64_t seed = 0; seed < 4; seed++) {
    tare_emulator_set_seed(seed);
    test_kernels();
    test_runtime();
  }
  tare_emulator_set_seed(0);
  test_numbers();
  test_runtime_once();
  test_speed();
  CHECK(tare_emulator_bytes_allocated() == 0);
  printf("%u checks, %u failed\n", checks, failures);
  return failures != 0;
}
