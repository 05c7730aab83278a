/* SPDX-License-Identifier: Apache-2.0 */
/* After a fork, and beside other users of OpenMP. */
#define _GNU_SOURCE
#include "reproducible.h"

/* ---- After fork ------------------------------------------------------------------------------------------------ */

/* In the child: no assertion of the test framework, which belongs to the parent. */
static void report_from_child(problem *p, const test_device *device, const outcome *want, int out) {
  tare_context *fresh = device_context(device, 2);
  outcome *inherited = problem_run(p, device);
  outcome *own = run_in(p, device, fresh);
  const size_t bytes = (size_t)(p->rows * p->classes) * sizeof(double);
  const char same = inherited->status == TARE_STATUS_OK && own->status == TARE_STATUS_OK &&
                    inherited->loss == want->loss && own->loss == want->loss &&
                    memcmp(inherited->gradient, want->gradient, bytes) == 0 &&
                    memcmp(own->gradient, want->gradient, bytes) == 0;
  const ssize_t written = write(out, &same, 1);
  _exit(written == 1 ? 0 : 1);
}

Test(reproducible, a_forked_child_computes_the_same) {
  FOR_EACH_DEVICE(device) {
    if (device->kind != TARE_DEVICE_CPU) continue; /* CUDA does not survive a fork */
    problem *p = problem_in(TARE_LOSS_SIGMOID_FOCAL, TARE_DTYPE_F32, FLAT);
    tare_context *many = device_context(device, 4);
    outcome *want = run_in(p, device, many); /* the parent's OpenMP threads exist now */
    int ends[2];
    cr_assert_eq(pipe(ends), 0);
    const pid_t child = fork();
    cr_assert_neq(child, -1);
    p->context = many;
    if (child == 0) report_from_child(p, device, want, ends[1]);
    p->context = NULL;
    struct pollfd wait_for = {.fd = ends[0], .events = POLLIN};
    const int ready = poll(&wait_for, 1, 60000);
    if (ready != 1) kill(child, SIGKILL);
    cr_assert_eq(ready, 1, "the child hangs");
    char same = 0;
    close(ends[1]);
    cr_assert_eq(read(ends[0], &same, 1), 1, "the child ended without an answer");
    waitpid(child, NULL, 0);
    cr_assert_eq(same, 1, "the child computed something else");
    close(ends[0]);
    expect_same(p, device, many, want); /* and the parent goes on */
    tare_context_destroy(many);
    outcome_free(want);
    problem_free(p);
  }
}

static int threads_now(void) {
  struct stat tasks; /* two links, and one more for each thread */
  return stat("/proc/self/task", &tasks) == 0 ? (int)tasks.st_nlink - 2 : 0;
}

/* libgomp ends the threads that a smaller region does not need. One that still ends at the fork may hold a lock of the
 * allocator of AddressSanitizer of gcc 12, which does not free it in the child: malloc would wait there for ever. So
 * the test gives them time, and its regions grow. */
static void let_surplus_threads_end(int threads) {
  for (int tries = 0; tries < 200 && threads_now() > threads; tries++) usleep(1000);
}

/* In a process of its own: the same bits within a minute, and the same in its own child. */
static bool agrees_in_children(problem *p, const test_device *device, tare_context *context, const outcome *want,
                               int generations) {
  const pid_t child = fork();
  if (child == 0) {
    alarm(60); /* ends a child that waits for threads that are not there */
    outcome *o = run_in(p, device, context);
    const bool same = o->status == TARE_STATUS_OK && o->loss == want->loss &&
                      memcmp(o->gradient, want->gradient, (size_t)o->elements * sizeof *o->gradient) == 0;
    _exit(same && (generations == 1 || agrees_in_children(p, device, context, want, generations - 1)) ? 0 : 1);
  }
  int status = 1;
  return child > 0 && waitpid(child, &status, 0) == child && status == 0;
}

/* At a size that threads share, whatever TARE_TEST_SMALL says: one tile alone would run on one. */
Test(reproducible, a_forked_child_does_not_wait_for_lost_threads) {
  FOR_EACH_DEVICE(device) {
    if (device->kind != TARE_DEVICE_CPU) continue;
    const int others = threads_now() - 1; /* the test framework's */
    for (int32_t threads = 2; threads <= 4; threads += 2) {
      FOR_EACH_LOSS(kind) {
        problem *p = problem_new(kind, TARE_DTYPE_F32, 4100, 16);
        tare_context *context = device_context(device, threads);
        outcome *want = run_in(p, device, context);
        if (strstr(tare_build_description(), "no OpenMP") == NULL)
          cr_assert_geq(threads_now(), threads, "the call ran on %d threads", threads_now());
        let_surplus_threads_end(threads + others);
        cr_assert(agrees_in_children(p, device, context, want, 2), "%s on %d threads: in a forked child",
                  problem_text(p), threads);
        expect_same(p, device, context, want);
        tare_context_destroy(context);
        outcome_free(want);
        problem_free(p);
      }
    }
  }
}

/* ---- Beside other users of OpenMP ------------------------------------------------------------------------------ */

/* LLVM's runtime as a compiler calls it (openmp/runtime/src/kmp.h): a place in the source, then the outlined body. */
typedef struct kmp_ident {
  int32_t reserved_1, flags, reserved_2, reserved_3;
  const char *source;
} kmp_ident;
typedef void kmp_body(int32_t *global_thread, int32_t *bound_thread, ...);
typedef void kmp_fork(kmp_ident *place, int32_t arguments, kmp_body *body, ...);

static atomic_int bodies;

static void count_body(int32_t *global_thread, int32_t *bound_thread, ...) {
  (void)global_thread;
  (void)bound_thread;
  atomic_fetch_add(&bodies, 1);
}

typedef struct other_runtime {
  kmp_fork *fork_call;
  int (*pause)(int kind); /* omp_pause_resource_all: ends its threads, which a leak checker at exit trips over */
} other_runtime;

enum { PAUSE_HARD = 2 };

static other_runtime load_other_runtime(void) {
  static const char *const names[] = {"libomp.so.5", "libomp.so", "/usr/lib/llvm-14/lib/libomp.so.5"};
  for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
    void *library = dlopen(names[i], RTLD_NOW | RTLD_LOCAL);
    if (library == NULL) continue;
    other_runtime found = {NULL, NULL};
    *(void **)&found.fork_call = dlsym(library, "__kmpc_fork_call");
    *(void **)&found.pause = dlsym(library, "omp_pause_resource_all");
    if (found.fork_call != NULL && found.pause != NULL) return found;
  }
  cr_skip_test("no second OpenMP runtime: libomp.so.5 is not installed");
  return (other_runtime){NULL, NULL};
}

static void run_region(kmp_fork *fork_call) {
  kmp_ident place = {.flags = 2, .source = ";unknown;unknown;0;0;;"};
  atomic_store(&bodies, 0);
  fork_call(&place, 0, count_body);
  cr_assert_geq(atomic_load(&bodies), 1, "the other runtime ran nothing");
}

Test(reproducible, beside_another_openmp_runtime) {
  setenv("OMP_NUM_THREADS", "3", 1); /* more than one thread in either runtime, whatever the machine */
  const other_runtime other = load_other_runtime();
  FOR_EACH_DEVICE(device) {
    tare_context *context = device_context(device, 3);
    problem *p = problem_in(TARE_LOSS_SIGMOID_FOCAL, TARE_DTYPE_F32, FLAT);
    outcome *before = run_in(p, device, context);
    for (int i = 0; i < 3; i++) {
      run_region(other.fork_call);
      expect_same(p, device, context, before);
    }
    outcome_free(before);
    problem_free(p);
    tare_context_destroy(context);
  }
  other.pause(PAUSE_HARD);
}

/* The global count of the OpenMP runtime that the library itself uses. */
typedef struct openmp {
  int (*get_max_threads)(void);
  void (*set_num_threads)(int);
} openmp;

static openmp own_runtime(void) {
  openmp found = {NULL, NULL};
  *(void **)&found.get_max_threads = dlsym(RTLD_DEFAULT, "omp_get_max_threads");
  *(void **)&found.set_num_threads = dlsym(RTLD_DEFAULT, "omp_set_num_threads");
  if (found.get_max_threads == NULL || found.set_num_threads == NULL) cr_skip_test("built without OpenMP");
  return found;
}

Test(reproducible, openmp_count_is_left_alone) {
  const openmp runtime = own_runtime();
  FOR_EACH_DEVICE(device) {
    for (int global = 1; global <= 5; global += 2) {
      runtime.set_num_threads(global);
      tare_context *context = device_context(device, 2);
      FOR_EACH_LOSS(kind) {
        problem *p = problem_in(kind, TARE_DTYPE_F32, FLAT);
        outcome_free(run_in(p, device, context));
        problem_free(p);
      }
      cr_assert_eq(runtime.get_max_threads(), global);
      tare_context_destroy(context);
      cr_assert_eq(runtime.get_max_threads(), global);
    }
  }
}

Test(reproducible, openmp_count_is_read_at_creation_only) {
  const openmp runtime = own_runtime();
  FOR_EACH_DEVICE(device) {
    if (device->kind != TARE_DEVICE_CPU) continue;
    tare_context_description d = {.struct_size = sizeof d};
    runtime.set_num_threads(3);
    tare_context *context = device_context(device, 0);
    runtime.set_num_threads(5);
    cr_assert_eq(tare_context_describe(context, &d), TARE_STATUS_OK);
    cr_assert_eq(d.threads, 3);
    tare_context_destroy(context);
  }
}
