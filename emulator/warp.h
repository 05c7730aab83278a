/* SPDX-License-Identifier: Apache-2.0 */
/* The one operation that every shuffle and vote is made of. */
#ifndef TARE_EMULATOR_WARP_H
#define TARE_EMULATOR_WARP_H

#include "thread.h"

namespace emulator {

/* Waits for all 32 lanes, each bringing a value; gives all 32 values, valid until this lane's next call. */
const uint64_t *exchange(uint32_t mask, uint64_t value, const char *doing, place at);

}  // namespace emulator

#endif
