# SPDX-License-Identifier: Apache-2.0
# Language level, warnings, sanitizers. Targets take them by linking tare_flags.

if(PROJECT_IS_TOP_LEVEL AND NOT CMAKE_BUILD_TYPE AND NOT CMAKE_CONFIGURATION_TYPES)
  set(CMAKE_BUILD_TYPE Release CACHE STRING "Debug, Release, RelWithDebInfo or MinSizeRel" FORCE)
endif()

set(CMAKE_C_STANDARD 11)
set(CMAKE_C_STANDARD_REQUIRED ON)
set(CMAKE_C_EXTENSIONS OFF)
set(CMAKE_C_VISIBILITY_PRESET hidden)
set(CMAKE_POSITION_INDEPENDENT_CODE ON)
set(CMAKE_EXPORT_COMPILE_COMMANDS ON)

add_library(tare_flags INTERFACE)
target_compile_options(tare_flags INTERFACE
  $<$<COMPILE_LANGUAGE:C>:-Wall;-Wextra;-Wpedantic;-Wshadow;-Wconversion;-Wcast-qual;-Wstrict-prototypes;-Wmissing-prototypes>
  $<$<AND:$<COMPILE_LANGUAGE:C>,$<BOOL:${TARE_WERROR}>>:-Werror>)

# Criterion's macros do not survive the strictest warnings.
add_library(tare_test_flags INTERFACE)
target_compile_options(tare_test_flags INTERFACE
  $<$<COMPILE_LANGUAGE:C,CXX>:-Wall;-Wextra;-Wshadow>
  $<$<AND:$<COMPILE_LANGUAGE:C,CXX>,$<BOOL:${TARE_WERROR}>>:-Werror>)

# Beyond what "undefined" means, C is also checked for divisions by 0, numbers that do not fit an integer, and arrays in
# structs; kernels in C++ divide by 0 where CUDA means it.
if(TARE_SANITIZE)
  if(CMAKE_C_COMPILER_ID MATCHES "Clang")
    set(c_sanitizers float-divide-by-zero,float-cast-overflow,local-bounds,nullability)
  else()
    set(c_sanitizers float-divide-by-zero,float-cast-overflow,bounds-strict)
  endif()
  if(TARE_FUZZER)
    add_compile_options(-fsanitize=fuzzer-no-link)
  endif()
  # -O1, as AddressSanitizer's manual has it: cpu/instance.c compiles in a third of the time of -O0, and tests run
  # faster. Reports need line numbers and no more of -g.
  add_compile_options(-O1 -g1 -fsanitize=address,undefined $<$<COMPILE_LANGUAGE:C>:-fsanitize=${c_sanitizers}>
                      -fno-sanitize-recover=all -fno-omit-frame-pointer)
  add_link_options(-fsanitize=address,undefined)
endif()
