# SPDX-License-Identifier: Apache-2.0
# The library: one set of position-independent objects, linked twice. cpu/instance.c holds the hot loops and is
# compiled once per instruction set and type, cpu/doubles.c once per instruction set; the choice is made at run time.

# Always, whatever the build type: at -O2, or without vectorised math, the same loops are ten times slower. Rounding
# stays as written: no contraction, no reassociation.
set(TARE_HOT_FLAGS -fno-math-errno -fno-trapping-math -ffp-contract=off -fopenmp-simd)
if(CMAKE_C_COMPILER_ID MATCHES "Clang")
  list(APPEND TARE_HOT_FLAGS -Wno-pass-failed) # it may vectorise less than gcc, whose report the tests read
endif()

option(TARE_SMALL "x86-64: compile the kernels for f64, and those for machines without AVX2, for size" OFF)

file(GLOB library_sources CONFIGURE_DEPENDS "${PROJECT_SOURCE_DIR}/losses/*.c"
     "${PROJECT_SOURCE_DIR}/core/*.c" "${PROJECT_SOURCE_DIR}/core/check/*.c" "${PROJECT_SOURCE_DIR}/cpu/*.c")
list(REMOVE_ITEM library_sources "${PROJECT_SOURCE_DIR}/cpu/instance.c" "${PROJECT_SOURCE_DIR}/cpu/doubles.c")

# Loaded by name when the fused head is first used, so that nothing here depends on it.
if(TARE_BLAS)
  set(TARE_BLAS_DEFINITION TARE_BLAS_NAME="${TARE_BLAS}")
  tare_report(blas yes "the fused head loads ${TARE_BLAS} when first used")
else()
  set(TARE_BLAS_DEFINITION "")
  tare_report(blas off "TARE_BLAS=${TARE_BLAS}")
endif()

add_library(tare_objects OBJECT ${library_sources})
target_compile_definitions(tare_objects PRIVATE TARE_VERSION_STRING="${PROJECT_VERSION}" ${TARE_BLAS_DEFINITION})
target_compile_options(tare_objects PRIVATE -ffp-contract=off -fopenmp-simd) # losses/twofold.h counts on every rounding
set(tare_object_targets tare_objects)
set(TARE_OBJECT_FLAGS "")

# What gcc vectorised, for tests/checks/vectorisation.sh; by a path relative to the build folder, where the compiler runs.
set(report OFF)
if(PROJECT_IS_TOP_LEVEL AND TARE_TESTS AND NOT TARE_SANITIZE AND CMAKE_C_COMPILER_ID STREQUAL "GNU")
  set(report ON)
  file(MAKE_DIRECTORY "${PROJECT_BINARY_DIR}/vectorisation")
endif()

# tare_add_kernels(ISA PART SOURCE flag...): objects with the table tare_kernels_ISA_PART
function(tare_add_kernels isa part source)
  set(target tare_instance_${isa}_${part})
  add_library(${target} OBJECT "${PROJECT_SOURCE_DIR}/cpu/${source}")
  target_compile_definitions(${target} PRIVATE TARE_KERNELS=tare_kernels_${isa}_${part})
  target_compile_options(${target} PRIVATE ${TARE_HOT_FLAGS} ${TARE_FLAGS_${isa}} ${ARGN})
  if(part STREQUAL "all")
    target_compile_options(${target} PRIVATE -Wno-unused-function) # the headers serve cpu/instance.c as well
  endif()
  if(report AND NOT TARE_SMALL)
    target_compile_options(${target} PRIVATE -fopt-info-vec-optimized-missed=vectorisation/${isa}_${part}.report)
  endif()
  set(tare_instance_targets ${tare_instance_targets} ${target} PARENT_SCOPE)
endfunction()

function(tare_add_instruction_set isa) # all of its kernels, for speed
  tare_add_kernels(${isa} all doubles.c -O3)
  foreach(bits IN ITEMS 32 64)
    tare_add_kernels(${isa} f${bits} instance.c -O3 -DTARE_REAL_BITS=${bits})
  endforeach()
  set(tare_instance_targets ${tare_instance_targets} PARENT_SCOPE)
  set(tare_instruction_sets ${tare_instruction_sets} ${isa} PARENT_SCOPE)
endfunction()

if(CMAKE_SYSTEM_PROCESSOR MATCHES "^(x86_64|AMD64|amd64)$")
  set(TARE_FLAGS_avx2 -mavx2 -mfma -mf16c)
  set(TARE_FLAGS_avx512 -mavx512f -mavx512bw -mavx512dq -mavx512vl -mavx2 -mfma -mf16c -mprefer-vector-width=512)
  list(APPEND TARE_ISA_DEFINITIONS TARE_HAVE_AVX512=1)
  # No source is for AVX2 alone, so the sanitizers see in the baseline and in AVX-512 what they would see in it.
  if(TARE_SMALL OR NOT TARE_SANITIZE OR TARE_TEST_LONG)
    list(APPEND TARE_ISA_DEFINITIONS TARE_HAVE_AVX2=1)
  endif()
endif()

# Scalable vectors, of the length that a machine has. Not in the small library: most machines have 128 bits, like NEON.
if(CMAKE_SYSTEM_PROCESSOR MATCHES "^(aarch64|arm64)$" AND CMAKE_SYSTEM_NAME STREQUAL "Linux" AND NOT TARE_SMALL)
  include(CheckCCompilerFlag)
  check_c_compiler_flag(-march=armv8.2-a+sve TARE_HAVE_SVE)
  if(TARE_HAVE_SVE)
    set(TARE_FLAGS_sve -march=armv8.2-a+sve)
    set(sve_definition TARE_HAVE_SVE=1)
  endif()
endif()

if(TARE_SMALL AND TARE_ISA_DEFINITIONS)
  include(cmake/small.cmake)
else()
  tare_add_instruction_set(baseline)
  if("TARE_HAVE_AVX2=1" IN_LIST TARE_ISA_DEFINITIONS)
    tare_add_instruction_set(avx2)
  endif()
  if("TARE_HAVE_AVX512=1" IN_LIST TARE_ISA_DEFINITIONS)
    tare_add_instruction_set(avx512)
  endif()
  if(sve_definition) # gcc 12 takes NEON's vectors for most of cpu/doubles.c, so NEON's kernels serve
    foreach(bits IN ITEMS 32 64)
      tare_add_kernels(sve f${bits} instance.c -O3 -DTARE_REAL_BITS=${bits})
    endforeach()
    list(APPEND tare_instruction_sets sve)
  endif()
endif()
list(APPEND TARE_ISA_DEFINITIONS ${sve_definition})
target_compile_definitions(tare_objects PRIVATE ${TARE_ISA_DEFINITIONS})

set(THREADS_PREFER_PTHREAD_FLAG ON)
find_package(Threads REQUIRED)
list(APPEND tare_object_targets ${tare_instance_targets})
list(JOIN tare_instruction_sets ", " instruction_sets)
tare_report(library yes "shared and static: ${instruction_sets}")

include(CheckLibraryExists) # not find_library, which may find the building machine's
check_library_exists(m pow "" TARE_HAVE_LIBM)
add_library(tare SHARED)
add_library(tare_static STATIC)
# While the major number is 0 the interface may change with the minor one.
set(soversion ${PROJECT_VERSION_MAJOR})
if(PROJECT_VERSION_MAJOR EQUAL 0)
  set(soversion 0.${PROJECT_VERSION_MINOR})
endif()
set_target_properties(tare PROPERTIES VERSION ${PROJECT_VERSION} SOVERSION ${soversion})
set_target_properties(tare_static PROPERTIES OUTPUT_NAME tare)
if(NOT TARE_SANITIZE)
  target_link_options(tare PRIVATE LINKER:-z,defs)
endif()
# The pool's threads outlive a call. They would crash in code that dlclose has taken away, so the library stays loaded,
# and so does a plugin that has the static one inside.
target_link_options(tare PRIVATE LINKER:-z,nodelete)
set(type $<TARGET_PROPERTY:TYPE>)
target_link_options(tare_static INTERFACE
  "$<$<OR:$<STREQUAL:${type},SHARED_LIBRARY>,$<STREQUAL:${type},MODULE_LIBRARY>>:LINKER:-z,nodelete>")

foreach(object IN LISTS tare_object_targets)
  target_compile_options(${object} PRIVATE ${TARE_OBJECT_FLAGS})
  target_include_directories(${object} PRIVATE "${PROJECT_SOURCE_DIR}/include" "${PROJECT_SOURCE_DIR}")
  target_link_libraries(${object} PRIVATE tare_flags)
  target_sources(tare PRIVATE $<TARGET_OBJECTS:${object}>)
  target_sources(tare_static PRIVATE $<TARGET_OBJECTS:${object}>)
endforeach()

foreach(library IN ITEMS tare tare_static)
  add_library(tare::${library} ALIAS ${library})
  target_include_directories(${library} PUBLIC "$<BUILD_INTERFACE:${PROJECT_SOURCE_DIR}/include>"
                                               "$<INSTALL_INTERFACE:${CMAKE_INSTALL_INCLUDEDIR}>")
  target_link_libraries(${library} PRIVATE $<$<BOOL:${TARE_HAVE_LIBM}>:m> Threads::Threads ${CMAKE_DL_LIBS})
endforeach()
