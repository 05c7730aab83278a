/* SPDX-License-Identifier: Apache-2.0 */
/* Loads a CBLAS by file name: the one of the environment variable TARE_BLAS, or of the build option of that name. */
#include "blas.h"

#include <dlfcn.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#ifndef TARE_BLAS_NAME
#define TARE_BLAS_NAME ""
#endif

static pthread_once_t once = PTHREAD_ONCE_INIT;
static tare_sgemm *found;
static tare_error why_not;

/** dlsym gives an object pointer, which POSIX lets be copied into a function's. */
static void find_symbol(void *library, const char *name) {
  void *symbol = dlsym(library, "cblas_sgemm");
  if (symbol) memcpy(&found, &symbol, sizeof found);
  if (!symbol)
    (void)tare_fail(&why_not, TARE_STATUS_NO_BLAS,
                    "the fused head needs a CBLAS, and %.200s has no cblas_sgemm; TARE_BLAS names another library",
                    name);
}

static void load(void) {
  const char *name = getenv("TARE_BLAS");
  if (!name) name = TARE_BLAS_NAME;
  if (!*name) {
    (void)tare_fail(&why_not, TARE_STATUS_NO_BLAS,
                    "the fused head needs a CBLAS, and this library was built without one (TARE_BLAS=OFF); the "
                    "environment variable TARE_BLAS can name one");
    return;
  }
  void *library = dlopen(name, RTLD_NOW | RTLD_LOCAL); /* for good: its threads cannot be unloaded */
  if (library) {
    find_symbol(library, name);
    return;
  }
  const char *reason = dlerror();
  (void)tare_fail(&why_not, TARE_STATUS_NO_BLAS,
                  "the fused head needs a CBLAS, and it could not be loaded: %.200s; install OpenBLAS (Debian: "
                  "libopenblas0), or name another in the environment variable TARE_BLAS",
                  reason ? reason : name);
}

tare_status tare_blas_load(tare_sgemm **sgemm, tare_error *error) {
  pthread_once(&once, load);
  *sgemm = found;
  if (!found) *error = why_not;
  return found ? TARE_STATUS_OK : TARE_STATUS_NO_BLAS;
}
