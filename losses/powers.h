/* SPDX-License-Identifier: Apache-2.0 */
/* The exponents that have an instance of their own, and the choice of one for a gamma. */
#ifndef TARE_LOSSES_POWERS_H
#define TARE_LOSSES_POWERS_H

enum tare_power {
  TARE_POWER_0,
  TARE_POWER_1,
  TARE_POWER_2,
  TARE_POWER_HALF,
  TARE_POWER_3_HALVES,
  TARE_POWER_GENERAL,
  TARE_POWER_COUNT
};

static inline int tare_power_of_gamma(double gamma) {
  return gamma == 0.0   ? TARE_POWER_0
         : gamma == 1.0 ? TARE_POWER_1
         : gamma == 2.0 ? TARE_POWER_2
         : gamma == 0.5 ? TARE_POWER_HALF
         : gamma == 1.5 ? TARE_POWER_3_HALVES
                        : TARE_POWER_GENERAL;
}

#endif
