/* SPDX-License-Identifier: Apache-2.0 */
/* Division by a caller's divisor. */
#ifndef TARE_CORE_DIVIDE_H
#define TARE_CORE_DIVIDE_H

/** x/divisor. A divisor of 0 that the caller gave in memory is used as it is: infinity or NaN, as IEEE 754 has it. The
 *  sanitizers take such a division for an error where nothing says that it is meant. */
__attribute__((no_sanitize("float-divide-by-zero"))) static inline double tare_divide(double x, double divisor) {
  return x / divisor;
}

#endif
