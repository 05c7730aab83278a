/* SPDX-License-Identifier: Apache-2.0 */
/* What a function for tare_use_threads does, with threads that are made for each region. */
#ifndef SUPPORT_REGION_H
#define SUPPORT_REGION_H
#include <pthread.h>
#include <stdlib.h>

enum { REGION_MAX_OTHERS = 8 };

typedef struct region_share {
  void (*region)(void *);
  void *argument;
} region_share;

static inline void *region_join(void *argument) {
  const region_share *share = argument;
  share->region(share->argument);
  return NULL;
}

/* Runs a region on the calling thread and on so many others. */
static inline void region_run(int others, void (*region)(void *), void *argument) {
  pthread_t made[REGION_MAX_OTHERS];
  region_share share = {region, argument};
  for (int i = 0; i < others; i++)
    if (pthread_create(&made[i], NULL, region_join, &share) != 0) abort();
  region(argument);
  for (int i = 0; i < others; i++) pthread_join(made[i], NULL);
}

#endif
