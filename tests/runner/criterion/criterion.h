/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the tests use of Criterion, for builds whose tests run under qemu-user, which it does not know how to use.
 * CMake puts this folder in the place of Criterion's headers when it builds for another machine; runner.c runs the
 * cases. A text after a condition must be a literal, as the tests have it.
 */
#ifndef TARE_TESTS_RUNNER_CRITERION_H
#define TARE_TESTS_RUNNER_CRITERION_H

#include <math.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct runner_options {
  void (*init)(void), (*fini)(void);
  double timeout; /* seconds; 0: none */
} runner_options;

/** A case, or (run is NULL) the options of a suite. */
typedef struct runner_case {
  const char *suite, *name;
  void (*run)(void);
  runner_options options;
  struct runner_case *next;
} runner_case;

/** Adds it to the cases of the program; before main. */
void runner_add(runner_case *added);

/** Prints what failed. Ends the case if it is an assertion. */
__attribute__((format(printf, 5, 6))) void runner_fail(bool ends, const char *file, int line, const char *condition,
                                                       const char *format, ...);

__attribute__((noreturn, format(printf, 1, 2))) void runner_skip(const char *format, ...);

#define RUNNER_ADD(id, ...)                     \
  static runner_case id##_case = {__VA_ARGS__}; \
  __attribute__((constructor)) static void id##_add(void) { runner_add(&id##_case); }

#define TestSuite(suite_, ...) RUNNER_ADD(suite_, .suite = #suite_, .options = {__VA_ARGS__})
#define Test(suite_, name_, ...)                                                                \
  static void suite_##_##name_##_run(void);                                                     \
  RUNNER_ADD(suite_##_##name_, .suite = #suite_, .name = #name_, .run = suite_##_##name_##_run, \
             .options = {__VA_ARGS__})                                                          \
  static void suite_##_##name_##_run(void)

/* The space keeps a missing text from being an empty format. */
#define RUNNER_CHECK(ends, condition, text, ...) \
  ((condition) ? (void)0 : runner_fail(ends, __FILE__, __LINE__, text, " " __VA_ARGS__))
#define RUNNER_BOTH(ends, a, operator, b, ...) RUNNER_CHECK(ends, (a) operator(b), #a " " #operator" " #b, __VA_ARGS__)

#define cr_skip_test(...) runner_skip(__VA_ARGS__)
#define cr_assert_fail(...) (runner_fail(true, __FILE__, __LINE__, "failure", " " __VA_ARGS__), __builtin_unreachable())

#define cr_assert(condition, ...) RUNNER_CHECK(true, condition, #condition, __VA_ARGS__)
#define cr_assert_not(condition, ...) RUNNER_CHECK(true, !(condition), "not " #condition, __VA_ARGS__)
#define cr_assert_null(value, ...) RUNNER_CHECK(true, (value) == NULL, #value " is NULL", __VA_ARGS__)
#define cr_assert_not_null(value, ...) RUNNER_CHECK(true, (value) != NULL, #value " is not NULL", __VA_ARGS__)
#define cr_assert_eq(a, b, ...) RUNNER_BOTH(true, a, ==, b, __VA_ARGS__)
#define cr_assert_neq(a, b, ...) RUNNER_BOTH(true, a, !=, b, __VA_ARGS__)
#define cr_assert_lt(a, b, ...) RUNNER_BOTH(true, a, <, b, __VA_ARGS__)
#define cr_assert_leq(a, b, ...) RUNNER_BOTH(true, a, <=, b, __VA_ARGS__)
#define cr_assert_gt(a, b, ...) RUNNER_BOTH(true, a, >, b, __VA_ARGS__)
#define cr_assert_geq(a, b, ...) RUNNER_BOTH(true, a, >=, b, __VA_ARGS__)
#define cr_assert_float_eq(a, b, epsilon, ...) \
  RUNNER_CHECK(true, fabs((a) - (b)) <= (epsilon), #a " is about " #b, __VA_ARGS__)
#define cr_assert_str_eq(a, b, ...) RUNNER_CHECK(true, strcmp(a, b) == 0, #a " is " #b, __VA_ARGS__)
#define cr_assert_arr_eq(a, b, size, ...) RUNNER_CHECK(true, memcmp(a, b, size) == 0, #a " is " #b, __VA_ARGS__)

#define cr_expect(condition, ...) RUNNER_CHECK(false, condition, #condition, __VA_ARGS__)
#define cr_expect_not_null(value, ...) RUNNER_CHECK(false, (value) != NULL, #value " is not NULL", __VA_ARGS__)
#define cr_expect_eq(a, b, ...) RUNNER_BOTH(false, a, ==, b, __VA_ARGS__)
#define cr_expect_neq(a, b, ...) RUNNER_BOTH(false, a, !=, b, __VA_ARGS__)
#define cr_expect_leq(a, b, ...) RUNNER_BOTH(false, a, <=, b, __VA_ARGS__)
#define cr_expect_str_eq(a, b, ...) RUNNER_CHECK(false, strcmp(a, b) == 0, #a " is " #b, __VA_ARGS__)
#define cr_expect_arr_eq(a, b, size, ...) RUNNER_CHECK(false, memcmp(a, b, size) == 0, #a " is " #b, __VA_ARGS__)

#endif
