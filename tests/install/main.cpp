/* SPDX-License-Identifier: Apache-2.0 */
/* A user's C++ program. The header twice on purpose. */
#include <tare.h>

#include <cstdio>

#include <tare.h>

int main() {
  double weight = 0;
  if (tare_version() != TARE_VERSION_NUMBER || tare_effective_number(2, 0.5, &weight) != TARE_STATUS_OK) return 1;
  std::printf("version %d, effective number of 2 samples at beta 0.5: %.3f\n", tare_version(), weight);
  return weight == 1.5 ? 0 : 1;
}
