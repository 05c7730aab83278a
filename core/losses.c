/* SPDX-License-Identifier: Apache-2.0 */
/* The list of losses, by index, kind and name. */
#include "losses.h"

#include <stddef.h>
#include <string.h>

/** Families and passes that both backends have kernels for. With DENSITY the formula's gradient norm is measured. */
enum { KERNELS_SIGMOID_ONE, KERNELS_SOFTMAX_ONE, KERNELS_SIGMOID_DENSITY_sigmoid_ce, KERNELS_REGRESSION_DENSITY_ghm_r };
#define KERNELS_ONE(FAMILY, formula) KERNELS_##FAMILY##_ONE
#define KERNELS_DENSITY(FAMILY, formula) KERNELS_##FAMILY##_DENSITY_##formula

enum { ALPHA_WHOLE, ALPHA_PART, ALPHA_APART, ALPHA_NEGATIVES, ALPHA_SHAPED };

enum {
#define TARE_PARAMETERS_OF(KIND) PARAMETERS_OF_##KIND,
#define TARE_PARAMETER(...)
#include "losses/parameters.def"
#undef TARE_PARAMETERS_OF
#undef TARE_PARAMETER
};

static const tare_listed_loss losses[] = {
#define TARE_LOSS(KIND, formula, text, FAMILY, POWERS, ALPHA, PASSES, the_member, TAKES) \
  {.name = text,                                                                         \
   .kind = TARE_LOSS_##KIND,                                                             \
   .family = TARE_LOSS_FAMILY_##FAMILY,                                                  \
   .passes = TARE_PASSES_##PASSES,                                                       \
   .takes = TAKES,                                                                       \
   .alpha_is_part = ALPHA_##ALPHA == ALPHA_PART,                                         \
   .labels_apart = ALPHA_##ALPHA >= ALPHA_APART,                                         \
   .alpha_of_negatives = ALPHA_##ALPHA == ALPHA_NEGATIVES,                               \
   .kernels = KERNELS_##PASSES(FAMILY, formula),                                         \
   .parameters = PARAMETERS_OF_##KIND,                                                   \
   .member = #the_member,                                                                \
   .end = offsetof(tare_loss_spec, the_member) + sizeof(((tare_loss_spec *)NULL)->the_member)},
#include "losses/losses.def"
#undef TARE_LOSS
};

enum {
#define TARE_LOSS(KIND, ...) PLACE_OF_##KIND,
#include "losses/losses.def"
#undef TARE_LOSS
  LOSS_COUNT
};

/* An enumerator that the list lacks does not compile. */
#pragma GCC diagnostic error "-Wswitch"
const tare_listed_loss *tare_find_loss(int32_t kind) {
  switch ((tare_loss_kind)kind) {
#define TARE_LOSS(KIND, ...) \
  case TARE_LOSS_##KIND:     \
    return &losses[PLACE_OF_##KIND];
#include "losses/losses.def"
#undef TARE_LOSS
  }
  return NULL;
}

tare_status tare_fail_unknown_loss(tare_error *error, const char *of, int32_t kind) {
  return tare_fail(error, TARE_STATUS_INVALID_ARGUMENT,
                   "%skind is %d; it must be a tare_loss_kind (tare_loss_kind_at lists them)", of, kind);
}

int32_t tare_loss_count(void) { return LOSS_COUNT; }

int32_t tare_loss_kind_at(int32_t index) { return index >= 0 && index < LOSS_COUNT ? losses[index].kind : -1; }

const char *tare_loss_name(int32_t kind) {
  const tare_listed_loss *loss = tare_find_loss(kind);
  return loss ? loss->name : NULL;
}

int32_t tare_loss_kind_from_name(const char *name) {
  for (int i = 0; name && i < LOSS_COUNT; i++)
    if (!strcmp(losses[i].name, name)) return losses[i].kind;
  return -1;
}
