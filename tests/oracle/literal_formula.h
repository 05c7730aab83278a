/* SPDX-License-Identifier: Apache-2.0 */
/* For the files of textbook formulas alone: a formula in MPFR, evaluated and differentiated. */
#ifndef TARE_TESTS_ORACLE_LITERAL_FORMULA_H
#define TARE_TESTS_ORACLE_LITERAL_FORMULA_H

#include <mpfr.h>

#include "oracle.h"

enum { LITERAL_PRECISION = 3000 };

/** A value of one real variable with the parameters it needs. */
typedef void (*literal_formula)(mpfr_t value, const mpfr_t x, const void *parameters);

struct oracle_pair literal_value_and_derivative(literal_formula f, double x, const void *parameters);

/** sigmoid(x); base^exponent. */
void literal_sigmoid_of(mpfr_t p, const mpfr_t x);
void literal_power(mpfr_t result, const mpfr_t base, double exponent);

#endif
