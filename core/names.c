/* SPDX-License-Identifier: Apache-2.0 */
/* The list of losses, by index, kind and name; and how the library was built. */
#include <string.h>

#include "tare.h"

static const struct {
  int32_t kind;
  const char *name;
} losses[] = {
#define TARE_LOSS(kind, formula, name, shape, powers, alpha, passes, member, takes) {TARE_LOSS_##kind, name},
#include "losses/losses.def"
#undef TARE_LOSS
};

enum { LOSS_COUNT = sizeof losses / sizeof *losses };

int32_t tare_loss_count(void) { return LOSS_COUNT; }

int32_t tare_loss_kind_at(int32_t index) { return index >= 0 && index < LOSS_COUNT ? losses[index].kind : -1; }

const char *tare_loss_name(int32_t kind) {
  for (int i = 0; i < LOSS_COUNT; i++)
    if (losses[i].kind == kind) return losses[i].name;
  return NULL;
}

int32_t tare_loss_kind_from_name(const char *name) {
  for (int i = 0; name && i < LOSS_COUNT; i++)
    if (!strcmp(losses[i].name, name)) return losses[i].kind;
  return -1;
}

#define TEXT_(x) #x
#define TEXT(x) TEXT_(x)

const char *tare_build_description(void) {
  return "Tare " TEXT(TARE_VERSION_MAJOR) "." TEXT(TARE_VERSION_MINOR) "." TEXT(TARE_VERSION_PATCH)
#if defined(__clang__)
      ", clang " TEXT(__clang_major__) "." TEXT(__clang_minor__)
#elif defined(__GNUC__)
      ", gcc " TEXT(__GNUC__) "." TEXT(__GNUC_MINOR__)
#endif
#ifdef _OPENMP
          ", OpenMP"
#else
          ", no OpenMP"
#endif
#ifdef TARE_WITH_CUDA
          ", CUDA"
#else
          ", no CUDA"
#endif
#ifdef TARE_BLAS_NAME
          ", CBLAS " TARE_BLAS_NAME
#else
          ", no CBLAS"
#endif
      ;
}
