/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A fuzz target without a fuzzer: replay [-r COUNT] FILE-OR-FOLDER... runs it over every file and over COUNT inputs
 * made from them by a few changed, added or dropped bytes, by the seed of TARE_TEST_SEED. The input that runs when the
 * process dies is kept in replay-failed.bin, where the process runs.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "fuzz.h"
#include "support/random.h"

enum { MOST_FILES = 512, MOST_BYTES = 4096 };

static struct input {
  uint8_t bytes[MOST_BYTES];
  size_t size;
} files[MOST_FILES];
static int count;

static const struct input *running;

static void keep(void) {
  const int file = open("replay-failed.bin", O_WRONLY | O_CREAT | O_TRUNC, 0644);
  static const char told[] = "replay: the input is in replay-failed.bin\n";
  if (file >= 0 && running != NULL && write(file, running->bytes, running->size) >= 0) {
    (void)!write(STDERR_FILENO, told, sizeof told - 1);
  }
}

static void keep_and_die(int number) {
  keep();
  signal(number, SIG_DFL);
  raise(number);
}

/* A sanitizer's, where there is one: it dies by itself. */
void __sanitizer_set_death_callback(void (*callback)(void)) __attribute__((weak));

static void watch(void) {
  static const int deadly[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGABRT};
  if (__sanitizer_set_death_callback != NULL) {
    __sanitizer_set_death_callback(keep);
    signal(SIGABRT, keep_and_die);
    return;
  }
  for (size_t i = 0; i < sizeof deadly / sizeof *deadly; i++) signal(deadly[i], keep_and_die);
}

static void read_file(const char *path) {
  FILE *file = fopen(path, "rb");
  if (file == NULL || count == MOST_FILES) {
    fprintf(stderr, "replay: cannot read %s\n", path);
    exit(1);
  }
  struct input *input = &files[count++];
  input->size = fread(input->bytes, 1, sizeof input->bytes, file);
  fclose(file);
}

static void read_path(const char *path) {
  struct stat about;
  if (stat(path, &about) == 0 && !S_ISDIR(about.st_mode)) {
    read_file(path);
    return;
  }
  struct dirent **entries;
  const int found = scandir(path, &entries, NULL, alphasort);
  for (int i = 0; i < found; i++) {
    char name[1024];
    snprintf(name, sizeof name, "%s/%s", path, entries[i]->d_name);
    if (entries[i]->d_name[0] != '.') read_file(name);
    free(entries[i]);
  }
  if (found >= 0) free(entries);
}

/* A byte changed, put in or taken out, or bytes of another file. */
static void change(struct input *input, random_source *s) {
  const size_t at = (size_t)random_below(s, (int64_t)input->size + 1);
  const int64_t choice = random_below(s, 6);
  if (choice == 0 && input->size < MOST_BYTES) {
    memmove(input->bytes + at + 1, input->bytes + at, input->size++ - at);
    input->bytes[at] = (uint8_t)random_below(s, 256);
  } else if (choice == 1 && at < input->size) {
    memmove(input->bytes + at, input->bytes + at + 1, --input->size - at);
  } else if (choice == 2) {
    const struct input *other = &files[random_below(s, count)];
    const size_t taken = other->size < MOST_BYTES - at ? other->size : MOST_BYTES - at;
    memcpy(input->bytes + at, other->bytes, taken);
    if (at + taken > input->size) input->size = at + taken;
  } else if (choice == 3 && at < input->size) {
    input->bytes[at] ^= (uint8_t)(1u << random_below(s, 8));
  } else if (at < input->size) {
    input->bytes[at] = (uint8_t)random_below(s, 256);
  }
}

/* Also inputs of nothing but chance, for targets that read numbers out of bytes. */
static void make(struct input *input, random_source *s) {
  *input = files[random_below(s, count)];
  const int64_t changes = 1 + random_below(s, 1 + random_below(s, 6));
  for (int64_t i = 0; i < changes; i++) change(input, s);
  if (random_below(s, 4) != 0) return;
  input->size = (size_t)random_below(s, 400);
  for (size_t i = 0; i < input->size; i++) input->bytes[i] = (uint8_t)random_bits(s);
}

static void run(const struct input *input) {
  running = input;
  /* An exact copy on the heap, so that reading beyond it is seen by a sanitizer. */
  uint8_t *copy = malloc(input->size > 0 ? input->size : 1);
  if (copy == NULL) abort();
  memcpy(copy, input->bytes, input->size);
  LLVMFuzzerTestOneInput(copy, input->size);
  free(copy);
}

int main(int argc, char **argv) {
  const char *small = getenv("TARE_TEST_SMALL");
  int64_t made = 0;
  for (int i = 1; i < argc; i++) {
    if (strcmp(argv[i], "-r") == 0 && i + 1 < argc) {
      made = strtoll(argv[++i], NULL, 10);
    } else {
      read_path(argv[i]);
    }
  }
  if (small != NULL && strcmp(small, "1") == 0) made /= 5;
  if (count == 0) {
    fprintf(stderr, "replay: no files\n");
    return 1;
  }
  watch();
  for (int i = 0; i < count; i++) run(&files[i]);
  random_source source = random_from(0x66757a7a);
  for (int64_t i = 0; i < made; i++) {
    static struct input input;
    make(&input, &source);
    run(&input);
  }
  printf("%d files, %lld made from them by seed %llu: %lld calls computed, %lld refused\n", count, (long long)made,
         (unsigned long long)random_seed(), (long long)fuzz_computed, (long long)fuzz_refused);
  if (fuzz_computed > 0) return 0;
  fprintf(stderr, "replay: nothing was computed\n");
  return 1;
}
