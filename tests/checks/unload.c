/* SPDX-License-Identifier: Apache-2.0 */
/*
 * unload LIBRARY: loads a library that has Tare in it, computes on several threads, unloads it, and goes on, as with a
 * plugin. The pool's threads sleep between two calls and wake up later: if their code is gone, they crash.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "tare.h"

enum { ROWS = 20000, CLASSES = 20 };
static float logits[ROWS * CLASSES];
static int32_t labels[ROWS];

typedef struct calls {
  void (*init)(tare_context_options *options, uint64_t struct_size);
  tare_status (*create)(tare_context **context, const tare_context_options *options);
  void (*destroy)(tare_context *context);
  tare_status (*focal)(tare_context *context, int64_t rows, int64_t classes, tare_dtype dtype, const void *logits,
                       const int32_t *labels, double gamma, double alpha, tare_normalizer normalizer, float *loss,
                       void *gradient, tare_stream stream);
} calls;

static int find(void *library, const char *name, void *call) {
  void *const found = dlsym(library, name);
  memcpy(call, &found, sizeof found);
  if (!found) printf("%s\n", dlerror());
  return found != NULL;
}

static int compute(const char *path, int32_t threads, float *loss) {
  void *library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
  calls c;
  if (!library) return printf("%s\n", dlerror()), 0;
  if (!find(library, "tare_context_options_init_sized", &c.init) || !find(library, "tare_context_create", &c.create) ||
      !find(library, "tare_context_destroy", &c.destroy) || !find(library, "tare_sigmoid_focal", &c.focal))
    return 0;
  tare_context *context;
  tare_context_options options;
  c.init(&options, sizeof options);
  options.device = TARE_DEVICE_CPU;
  options.threads = threads;
  if (c.create(&context, &options)) return 0;
  const tare_status status =
      c.focal(context, ROWS, CLASSES, TARE_DTYPE_F32, logits, labels, 2, 0.25, TARE_NORMALIZER_ROWS, loss, NULL, NULL);
  c.destroy(context);
  return dlclose(library) == 0 && status == TARE_STATUS_OK;
}

int main(int count, char **arguments) {
  const struct timespec a_while = {.tv_nsec = 50000000};
  float first = 0, again = 0;
  if (count != 2) return 2;
  for (int round = 0; round < 3; round++) {
    if (!compute(arguments[1], 2 + round, round ? &again : &first) || (round && again != first)) return 1;
    nanosleep(&a_while, NULL);
    const pid_t child = fork(); /* calls what the library wants called before a fork */
    if (child == 0) {
      alarm(60); /* it would wait for the parent's threads */
      _exit(compute(arguments[1], 2 + round, &again) && again == first ? 0 : 1);
    }
    int status = 1;
    if (child < 0 || waitpid(child, &status, 0) != child || status) return printf("a forked child failed\n"), 1;
  }
  printf("loaded and unloaded three times: loss %.6f\n", (double)first);
  return 0;
}
