/* SPDX-License-Identifier: Apache-2.0 */
/* A real detector's logits, early and late in its training, as the tool's files and as the oracle's problem. */
#ifndef TEST_REAL_DATA_H
#define TEST_REAL_DATA_H
#include "support/tool.h"

#include <criterion/criterion.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "support/answer.h"
#include "support/npy.h"
#include "support/numbers.h"
#include "support/parameters.h"
#include "support/problem.h"

static const char *const states[] = {"early", "late"};
enum { STATES = sizeof states / sizeof *states, PATH_BYTES = 1024 };

/* ---- Real data, as a problem and as files ---------------------------------------------------------------------- */

/* The files that the tool reads, and the same numbers for the oracle. */
typedef struct dataset {
  char logits[PATH_BYTES], labels[PATH_BYTES], targets[PATH_BYTES];
  int64_t rows, classes;
  double *values, *target_values;
  int64_t *label_values;
} dataset;

double *numbers_of(const npy_array *array);
dataset load(const char *state, const char *what);

/* load takes every row, or every Nth. */
int64_t rows_apart(void);
void unload(dataset *d);

/* The data as the oracle's problem. */
problem *problem_of(const dataset *d, int32_t kind);

static const tolerance close_enough = {.absolute = 1e-30, .relative = 1e-6};

/* Adds the problem's offsets to a command line, as a file. */
int add_offsets(const problem *p, char *text, size_t size);
void check_answer(const problem *p, const outcome *want, const tool_answer *answer, const char *command);

/* Runs the problem by the tool and by the oracle. `more` are options that the problem does not tell. */
void check_eval(problem *p, const dataset *d, const char *more);

#endif
