/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Number formats as the oracle sees them: the value of a bit pattern, the nearest pattern of a value, and the size of
 * one unit in the last place. Plain integer work, independent of the library's own conversions.
 */
#ifndef TARE_TESTS_ORACLE_FORMATS_H
#define TARE_TESTS_ORACLE_FORMATS_H

#include <stddef.h>
#include <stdint.h>

enum oracle_format { ORACLE_F32, ORACLE_F16, ORACLE_BF16, ORACLE_F64 };

size_t oracle_format_size(enum oracle_format format);

/** The value stored at `array[index]`, exactly. */
double oracle_load(enum oracle_format format, const void *array, size_t index);

/** Stores `value` at `array[index]`, rounded to nearest, ties to even; overflow gives infinity. */
void oracle_store(enum oracle_format format, void *array, size_t index, double value);

/** One unit in the last place at |value|: 2^(exponent - fraction bits), at least the smallest subnormal. */
double oracle_ulp(enum oracle_format format, double value);

#endif /* TARE_TESTS_ORACLE_FORMATS_H */
