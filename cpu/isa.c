/* SPDX-License-Identifier: Apache-2.0 */
/* The choice of an instruction set. */
#include "isa.h"

#include <stdlib.h>
#include <string.h>
#if defined(TARE_HAVE_AVX2) || defined(TARE_HAVE_AVX512)
#include <cpuid.h>
#endif
#ifdef TARE_HAVE_SVE
#include <asm/hwcap.h>
#include <sys/auxv.h>
#include <sys/prctl.h>
#endif

static int runs_always(void) { return 1; }

#if defined(TARE_HAVE_AVX2) || defined(TARE_HAVE_AVX512)
/** By hand: not every compiler's __builtin_cpu_supports knows it. */
static int has_f16c(void) {
  unsigned a, b, c, d;
  return __get_cpuid(1, &a, &b, &c, &d) && (c & bit_F16C);
}
#endif

#ifdef TARE_HAVE_AVX2
static int runs_avx2(void) { return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && has_f16c(); }
#endif

#ifdef TARE_HAVE_AVX512
static int runs_avx512(void) {
  return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
         __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("fma") &&
         has_f16c();
}
#endif

#ifdef TARE_HAVE_SVE
static int runs_sve(void) { return (getauxval(AT_HWCAP) & HWCAP_SVE) != 0; }

/** With 16 bytes a vector, as most machines have it, the hot loops take more instructions than NEON's. */
static int sve_is_wider(void) {
  const int length = prctl(PR_SVE_GET_VL);
  return length > 0 && (length & PR_SVE_VL_LEN_MASK) > 16;
}
#endif

#ifdef TARE_SMALL /* cmake/small.cmake */
#define AVX512_F64 tare_kernels_avx2_f64
#else
#define AVX512_F64 tare_kernels_avx512_f64
#endif

/** Best first. */
static const struct {
  tare_kernels kernels;
  int (*runs)(void);
  int (*pays)(void); /* whether it is taken if none is named */
} instances[] = {
#ifdef TARE_HAVE_AVX512
    {{"avx512", &tare_kernels_avx512_f32, &AVX512_F64, &tare_kernels_avx512_all}, runs_avx512, runs_always},
#endif
#ifdef TARE_HAVE_AVX2
    {{"avx2", &tare_kernels_avx2_f32, &tare_kernels_avx2_f64, &tare_kernels_avx2_all}, runs_avx2, runs_always},
#endif
#ifdef TARE_HAVE_SVE
    {{"sve", &tare_kernels_sve_f32, &tare_kernels_sve_f64, &tare_kernels_baseline_all}, runs_sve, sve_is_wider},
#endif
    {{"baseline", &tare_kernels_baseline_f32, &tare_kernels_baseline_f64, &tare_kernels_baseline_all},
     runs_always,
     runs_always},
};

enum { INSTANCES = sizeof instances / sizeof *instances };

/** "avx512, avx2, baseline": what this machine runs. */
static void list_runnable(char *text, size_t size) {
  text[0] = 0;
  for (int i = 0; i < INSTANCES; i++) {
    if (!instances[i].runs()) continue;
    if (text[0]) strncat(text, ", ", size - strlen(text) - 1);
    strncat(text, instances[i].kernels.name, size - strlen(text) - 1);
  }
}

tare_status tare_kernels_select(const tare_kernels **kernels, tare_error *error) {
  const char *wanted = getenv("TARE_ISA");
  for (int i = 0; i < INSTANCES; i++) {
    const int named = wanted && *wanted;
    if (named && strcmp(wanted, instances[i].kernels.name)) continue;
    if (!instances[i].runs() || (!named && !instances[i].pays())) continue;
    *kernels = &instances[i].kernels;
    return TARE_STATUS_OK;
  }
  char runnable[64];
  list_runnable(runnable, sizeof runnable);
  return tare_fail(error, TARE_STATUS_INVALID_ARGUMENT, "TARE_ISA is \"%.60s\"; this machine and library run %s",
                   wanted, runnable);
}
