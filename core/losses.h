/* SPDX-License-Identifier: Apache-2.0 */
/* The list of losses (losses/losses.def) as a table. */
#ifndef TARE_CORE_LOSSES_H
#define TARE_CORE_LOSSES_H

#include "problem.h"

typedef struct tare_listed_loss {
  const char *name;
  int32_t kind, family, passes, takes;
  int32_t alpha_is_part, labels_apart, alpha_of_negatives; /* see tare_problem */
  int32_t kernels;    /* which do family and passes; a loss without any does not compile */
  int32_t parameters; /* the loss's place in parameters.def; a loss that is not there does not compile */
  const char *member; /* of tare_loss_spec's union */
  uint64_t end;       /* of that member, in tare_loss_spec */
} tare_listed_loss;

/** NULL for a kind that is not in the list. */
const tare_listed_loss *tare_find_loss(int32_t kind);

/** Returns TARE_STATUS_INVALID_ARGUMENT. The text names the kind, with `of` before "kind". */
tare_status tare_fail_unknown_loss(tare_error *error, const char *of, int32_t kind);

#endif
