/* SPDX-License-Identifier: Apache-2.0 */
/* Division by a caller's divisor. */
#ifndef TARE_CORE_DIVIDE_H
#define TARE_CORE_DIVIDE_H

/** x/divisor. A divisor of 0 in the caller's memory gives infinity or NaN, as in IEEE 754. The attribute tells the
 *  sanitizers that this is intended. */
__attribute__((no_sanitize("float-divide-by-zero"))) static inline double tare_divide(double x, double divisor) {
  return x / divisor;
}

#endif
