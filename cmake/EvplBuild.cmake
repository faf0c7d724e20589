# How everything here is compiled: warnings, sanitizers, coverage, link-time optimisation.

if(PROJECT_IS_TOP_LEVEL)
  if(NOT CMAKE_BUILD_TYPE)
    set(CMAKE_BUILD_TYPE Release)
  endif()
  set(CMAKE_EXPORT_COMPILE_COMMANDS ON)
  find_program(EVPL_CCACHE ccache)
  # What was compiled with another profile must not be found again: ccache does not see that these files have changed.
  if(EVPL_CCACHE AND NOT EVPL_PROFILE AND NOT DEFINED CMAKE_CXX_COMPILER_LAUNCHER)
    set(CMAKE_C_COMPILER_LAUNCHER ${EVPL_CCACHE})
    set(CMAKE_CXX_COMPILER_LAUNCHER ${EVPL_CCACHE})
  endif()
endif()

set(evpl_gcc FALSE)
if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU")
  set(evpl_gcc TRUE)
endif()

# -Wconversion and -Wsign-conversion are left out: on this code they find casts, not mistakes.
# Option structs are filled by name and kernel structs in part, hence -Wno-missing-field-initializers.
set(evpl_warnings
  -Wall -Wextra -Wpedantic -Wshadow -Wundef -Wformat=2 -Wno-format-nonliteral -Wcast-align -Wvla -Wwrite-strings
  -Wno-missing-field-initializers)
set(evpl_cxx_warnings -Woverloaded-virtual -Wextra-semi)
if(evpl_gcc)
  list(APPEND evpl_warnings -Wduplicated-cond)
endif()
if(EVPL_WERROR)
  list(APPEND evpl_warnings -Werror)
  if(evpl_gcc)
    # These depend on what the optimiser happens to see; GCC 12 reports correct code. They stay visible, without
    # stopping the build. -Wtsan says that a fence is invisible to ThreadSanitizer: true, and not a defect.
    foreach(name maybe-uninitialized restrict stringop-overflow stringop-overread array-bounds dangling-pointer
                 free-nonheap-object tsan)
      list(APPEND evpl_warnings -Wno-error=${name})
    endforeach()
  endif()
endif()

if(EVPL_SANITIZE)
  add_compile_options(-fsanitize=${EVPL_SANITIZE} -fno-omit-frame-pointer)
  add_link_options(-fsanitize=${EVPL_SANITIZE})
  if(EVPL_SANITIZE MATCHES "undefined")
    add_compile_options(-fno-sanitize-recover=undefined)
  endif()
endif()

if(EVPL_COVERAGE)
  add_compile_options(--coverage)
  add_link_options(--coverage)
  if(evpl_gcc)
    add_compile_options(-fprofile-update=atomic)
  endif()
endif()

if(EVPL_LTO)
  include(CheckIPOSupported)
  check_ipo_supported(RESULT evpl_lto OUTPUT why LANGUAGES CXX)
  if(NOT evpl_lto)
    message(WARNING "link-time optimisation is not available: ${why}")
  elseif(evpl_gcc)
    # Fat objects: the installed static library has to serve linkers that do not read GCC's own format.
    set(CMAKE_CXX_COMPILE_OPTIONS_IPO -flto=auto -ffat-lto-objects)
  endif()
else()
  set(evpl_lto OFF)
endif()

if(EVPL_PROFILE STREQUAL "record")
  add_link_options(-fprofile-generate)
elseif(NOT EVPL_PROFILE STREQUAL "" AND NOT EVPL_PROFILE STREQUAL "use")
  message(FATAL_ERROR "EVPL_PROFILE is '${EVPL_PROFILE}': it is empty, record or use")
endif()

# Code that was seen running is laid out for the way it ran; what the recording did not reach is compiled as without it
# (gcc(1), -fprofile-partial-training). Object names are noted relative to the build directory, so that any other one finds them.
function(evpl_profile target)
  if(NOT EVPL_PROFILE OR NOT evpl_gcc)
    return()
  endif()
  set(where -fprofile-prefix-path=${PROJECT_BINARY_DIR})
  if(EVPL_PROFILE STREQUAL "record")
    target_compile_options(${target} PRIVATE -fprofile-generate=${EVPL_PROFILE_DIR} -fprofile-update=atomic ${where})
  else()
    target_compile_options(${target} PRIVATE -fprofile-use=${EVPL_PROFILE_DIR} -fprofile-partial-training ${where} -Wno-error
      -Wno-missing-profile -Wno-coverage-mismatch -Wno-maybe-uninitialized -Wno-format-truncation)
  endif()
endfunction()

# What checks the library rather than being it. The optimiser, and the checks that UBSan adds to every access, take longer over a test's
# code than the test takes to run: it gets EVPL_CHECK_FLAGS, the library does not.
function(evpl_compile_as_check target)
  evpl_compile_like_us(${target})
  separate_arguments(flags UNIX_COMMAND "${EVPL_CHECK_FLAGS}")
  target_compile_options(${target} PRIVATE ${flags})
endfunction()

# evpl_precompile(<target> <header>), or <target> REUSE_FROM <other target>: what nearly every source of the target includes is read once.
# Not with ccache, which does not go with it and saves more; not in an optimised build, where reading is the lesser part.
function(evpl_precompile target)
  if(EVPL_CHECK_FLAGS AND NOT EVPL_CCACHE AND NOT EVPL_LTO AND NOT EVPL_PROFILE)
    if(ARGV1 STREQUAL "REUSE_FROM")
      target_precompile_headers(${target} REUSE_FROM ${ARGV2})
    else()
      target_precompile_headers(${target} PRIVATE ${ARGV1})
    endif()
  endif()
endfunction()

# evpl_compile_together(<target> [<source>...]): some sources at a time, the given ones with those of their folder, so that what all of them
# read is read once and a template that all of them use is instantiated once. Names that a source keeps to itself must differ from those of
# the others. Not with ccache: one changed file compiles its others.
function(evpl_compile_together target)
  if(EVPL_CHECK_FLAGS AND NOT EVPL_CCACHE AND NOT EVPL_LTO AND NOT EVPL_PROFILE)
    set_target_properties(${target} PROPERTIES UNITY_BUILD ON UNITY_BUILD_BATCH_SIZE 8)
    if(ARGN)
      set_target_properties(${target} PROPERTIES UNITY_BUILD_MODE GROUP)
    endif()
    foreach(source IN LISTS ARGN)
      cmake_path(GET source PARENT_PATH folder)
      string(MAKE_C_IDENTIFIER "${folder}" group)
      set_source_files_properties(${source} PROPERTIES UNITY_GROUP ${group})
    endforeach()
    target_compile_options(${target} PRIVATE -Wno-subobject-linkage)  # warned of outside the main file, which such a source is not
  endif()
endfunction()

# evpl_compile_alone(<source>...): for programs that put another object in the place of this one.
function(evpl_compile_alone)
  set_source_files_properties(${ARGN} PROPERTIES SKIP_UNITY_BUILD_INCLUSION ON)
endfunction()

# What each of our own C++ targets gets.
function(evpl_compile_like_us target)
  target_compile_features(${target} PUBLIC cxx_std_20)
  set_target_properties(${target} PROPERTIES CXX_EXTENSIONS OFF INTERPROCEDURAL_OPTIMIZATION ${evpl_lto})
  target_compile_options(${target} PRIVATE ${evpl_warnings} "$<$<COMPILE_LANGUAGE:CXX>:${evpl_cxx_warnings}>")
  # Fields that were just stored one by one would be fetched by one wide load, which has to wait until they are in the cache: a stall of
  # a dozen cycles wherever a slice is moved.
  target_compile_options(${target} PRIVATE -fno-tree-slp-vectorize)
endfunction()
