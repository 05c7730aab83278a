/* SPDX-License-Identifier: Apache-2.0 */
/* How the library was built. */
#include "tare.h"

#define TEXT_(x) #x
#define TEXT(x) TEXT_(x)

const char *tare_build_description(void) {
  return "Tare " TEXT(TARE_VERSION_MAJOR) "." TEXT(TARE_VERSION_MINOR) "." TEXT(TARE_VERSION_PATCH)
#if defined(__clang__)
      ", clang " TEXT(__clang_major__) "." TEXT(__clang_minor__)
#elif defined(__GNUC__)
      ", gcc " TEXT(__GNUC__) "." TEXT(__GNUC_MINOR__)
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
