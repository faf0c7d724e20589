# Tests. Each folder of tests/ becomes one GoogleTest program, run as a few shards: one ctest entry per test case would
# cost a process each. scripts/test.sh adds up what the shards report.

find_package(GTest REQUIRED)
find_package(rapidcheck REQUIRED)
find_package(nlohmann_json REQUIRED)
find_package(Python3 REQUIRED COMPONENTS Interpreter)
find_package(PkgConfig REQUIRED)
pkg_check_modules(SECCOMP QUIET IMPORTED_TARGET libseccomp)

set(evpl_test_results ${PROJECT_BINARY_DIR}/test-results)

function(evpl_set_timeout test seconds)
  math(EXPR limit "${seconds} * ${EVPL_TIMEOUT_FACTOR}")
  set_tests_properties(${test} PROPERTIES TIMEOUT ${limit})
endfunction()

# evpl_add_tests(<program> SHARDS <n> TIMEOUT <seconds per shard> [SERIAL])
# Tests that disturb their neighbours (limits of the process, load) are SERIAL.
function(evpl_add_tests program)
  cmake_parse_arguments(arg "SERIAL" "SHARDS;TIMEOUT" "" ${ARGN})
  math(EXPR last "${arg_SHARDS} - 1")
  foreach(shard RANGE ${last})
    set(test ${program}.${shard})
    add_test(NAME ${test} COMMAND ${program} --gtest_output=xml:${evpl_test_results}/${test}.xml
             WORKING_DIRECTORY ${PROJECT_SOURCE_DIR})
    set_tests_properties(${test} PROPERTIES LABELS ${program}
      ENVIRONMENT "GTEST_TOTAL_SHARDS=${arg_SHARDS};GTEST_SHARD_INDEX=${shard};EVPL_COMMAND=${PROJECT_BINARY_DIR}/bin/evpl")
    evpl_set_timeout(${test} ${arg_TIMEOUT})
    if(arg_SERIAL)
      set_tests_properties(${test} PROPERTIES RUN_SERIAL ON)
    endif()
  endforeach()
endfunction()

# What several test programs share.
file(GLOB_RECURSE support_sources CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/tests/support/*.cpp)
add_library(evpl_test_support INTERFACE)
# The tests know the inside: src/ is on their path.
target_include_directories(evpl_test_support INTERFACE ${PROJECT_SOURCE_DIR}/src ${PROJECT_SOURCE_DIR}/tests)
target_link_libraries(evpl_test_support INTERFACE evpl_static GTest::gmock GTest::gtest rapidcheck rapidcheck_gtest
  nlohmann_json::nlohmann_json fmt::fmt-header-only Threads::Threads ${CMAKE_DL_LIBS})
target_compile_definitions(evpl_test_support INTERFACE $<$<BOOL:${EVPL_WITH_CARES}>:EVPL_WITH_CARES=1>)
target_compile_definitions(evpl_test_support INTERFACE $<$<BOOL:${EVPL_COVERAGE}>:EVPL_TEST_COVERAGE=1>)
if(SECCOMP_FOUND)
  target_link_libraries(evpl_test_support INTERFACE PkgConfig::SECCOMP)
  target_compile_definitions(evpl_test_support INTERFACE EVPL_TEST_SECCOMP=1)
endif()
if(support_sources)
  add_library(evpl_test_support_objects OBJECT ${support_sources})
  evpl_compile_as_check(evpl_test_support_objects)
  target_link_libraries(evpl_test_support_objects PRIVATE evpl_test_support)
endif()

# Under a watchdog, as are those that have a main() of their own.
add_library(evpl_test_main STATIC ${PROJECT_SOURCE_DIR}/tests/watched_main.cpp)
evpl_compile_as_check(evpl_test_main)
target_link_libraries(evpl_test_main PRIVATE evpl_test_support)
evpl_precompile(evpl_test_main ${PROJECT_SOURCE_DIR}/tests/support/precompiled.hpp)

# evpl_test_program(<folder> <arguments of evpl_add_tests>): tests/<folder>/**.cpp -> <folder>_tests
function(evpl_test_program folder)
  file(GLOB_RECURSE sources CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/tests/${folder}/*.cpp)
  if(NOT sources)
    return()
  endif()
  set(program ${folder}_tests)
  add_executable(${program} ${sources})
  evpl_compile_as_check(${program})
  evpl_precompile(${program} REUSE_FROM evpl_test_main)
  evpl_compile_together(${program})
  set_target_properties(${program} PROPERTIES RUNTIME_OUTPUT_DIRECTORY ${PROJECT_BINARY_DIR}/tests)
  if(TARGET evpl_test_support_objects)
    target_link_libraries(${program} PRIVATE evpl_test_support_objects)
  endif()
  # Our main() last: one of the folder's own wins.
  target_link_libraries(${program} PRIVATE evpl_test_support evpl_test_main)
  if(TARGET evpl-command)
    add_dependencies(${program} evpl-command)
  endif()
  evpl_add_tests(${program} ${ARGN})
endfunction()

evpl_test_program(unit SHARDS 4 TIMEOUT 120)
evpl_test_program(conformance SHARDS 4 TIMEOUT 180)
evpl_test_program(co SHARDS 2 TIMEOUT 120)
evpl_test_program(sim SHARDS 4 TIMEOUT 180)
evpl_test_program(capi SHARDS 1 TIMEOUT 120)
evpl_test_program(rdma SHARDS 1 TIMEOUT 60)
if(TARGET capi_tests)
  # Every function of the C interface, so that none is forgotten.
  file(STRINGS ${PROJECT_SOURCE_DIR}/include/evpl/evpl.h declarations REGEX "^EVPL_API ")
  set_property(DIRECTORY APPEND PROPERTY CMAKE_CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/include/evpl/evpl.h)
  list(TRANSFORM declarations REPLACE "^EVPL_API .*[ *](evpl_[a-z0-9_]+)\\(.*$" "EVPL_FUNCTION(\\1)\n")
  list(JOIN declarations "" declarations)
  file(CONFIGURE OUTPUT ${PROJECT_BINARY_DIR}/capi/capi_functions.inc CONTENT "${declarations}" @ONLY)
  target_include_directories(capi_tests PRIVATE ${PROJECT_BINARY_DIR}/capi)
  # The same in plain C, on the shared library: what a C program sees.
  add_executable(capi_c_test ${PROJECT_SOURCE_DIR}/tests/capi/plain.c)
  set_target_properties(capi_c_test PROPERTIES C_STANDARD 11 C_EXTENSIONS OFF RUNTIME_OUTPUT_DIRECTORY ${PROJECT_BINARY_DIR}/tests)
  target_compile_options(capi_c_test PRIVATE -Wall -Wextra -Wpedantic -Werror)
  target_link_libraries(capi_c_test PRIVATE evpl)
endif()
evpl_test_program(fault SHARDS 2 TIMEOUT 180 SERIAL)

include(EvplXlioDouble)

# evpl_add_xlio_test(<name> <program> <filter> <knobs> TIMEOUT <seconds>): tests of a program over the double.
function(evpl_add_xlio_test name program filter knobs)
  cmake_parse_arguments(arg "" "TIMEOUT" "" ${ARGN})
  add_test(NAME ${name} COMMAND ${program} --gtest_filter=${filter} --gtest_output=xml:${evpl_test_results}/${name}.xml
           WORKING_DIRECTORY ${PROJECT_SOURCE_DIR})
  set_tests_properties(${name} PROPERTIES LABELS xlio ENVIRONMENT
    "EVPL_XLIO_LIBRARY=${evpl_xlio_double};EVPL_XLIO_CHECK=off;EVPL_XLIO_FALLBACK=off;XLIO_DOUBLE=${knobs};EVPL_COMMAND=${PROJECT_BINARY_DIR}/bin/evpl")
  evpl_set_timeout(${name} ${arg_TIMEOUT})
endfunction()
evpl_test_program(xlio SHARDS 1 TIMEOUT 180)
target_include_directories(xlio_tests PRIVATE ${PROJECT_SOURCE_DIR}/tools/xlio_probe)
target_compile_definitions(xlio_tests PRIVATE XLIO_DOUBLE_PATH="${evpl_xlio_double}" XLIO_PROBE_PATH="${PROJECT_BINARY_DIR}/libexec/evpl-xlio-probe")
add_dependencies(xlio_tests xlio_double evpl_xlio_probe)
# The library with libxlio linked in: its own table.cpp stands before that of the archive.
evpl_test_program(xlio_linked SHARDS 1 TIMEOUT 60)
target_sources(xlio_linked_tests PRIVATE ${PROJECT_SOURCE_DIR}/src/transport/xlio/table.cpp)
evpl_compile_alone(${PROJECT_SOURCE_DIR}/src/transport/xlio/table.cpp)
target_compile_definitions(xlio_linked_tests PRIVATE EVPL_XLIO_STATIC=1)
target_link_libraries(xlio_linked_tests PRIVATE xlio_double_linked)
# The interface in plain C, by itself.
add_executable(xlio_plain_c ${PROJECT_SOURCE_DIR}/tests/xlio/plain.c)
set_target_properties(xlio_plain_c PROPERTIES C_STANDARD 11 C_EXTENSIONS OFF RUNTIME_OUTPUT_DIRECTORY ${PROJECT_BINARY_DIR}/tests)
target_compile_options(xlio_plain_c PRIVATE -Wall -Wextra -Werror)
target_link_libraries(xlio_plain_c PRIVATE ${CMAKE_DL_LIBS})
evpl_add_xlio_test(conformance_xlio_b conformance_tests "*/xlio" "layout=B" TIMEOUT 180)
evpl_add_xlio_test(conformance_xlio_a conformance_tests "*/xlio" "layout=A,seed=7,split,closed_first,late=3,enomem=50" TIMEOUT 180)
evpl_add_xlio_test(conformance_xlio_b_rough conformance_tests "*/xlio" "layout=B,seed=9,split,comp_inside,pds=2,enomem=7,tx_bytes=600000" TIMEOUT 180)

# A stand-in for libibverbs and librdmacm with devices of its own; the conformance suite runs over it, on the code that a device runs on.
if(TARGET verbs_double)
  # evpl_add_verbs_test(<name> <program> <filter> <knobs> TIMEOUT <seconds>): tests of a program over the double.
  function(evpl_add_verbs_test name program filter knobs)
    cmake_parse_arguments(arg "" "TIMEOUT" "" ${ARGN})
    add_test(NAME ${name} COMMAND ${program} --gtest_filter=${filter} --gtest_output=xml:${evpl_test_results}/${name}.xml
             WORKING_DIRECTORY ${PROJECT_SOURCE_DIR})
    set_tests_properties(${name} PROPERTIES LABELS rdma ENVIRONMENT
      "EVPL_RDMA_LIBRARY=${evpl_verbs_double};EVPL_TEST_RDMA_ADDRESS=10.77.0.1;VERBS_DOUBLE=${knobs};EVPL_COMMAND=${PROJECT_BINARY_DIR}/bin/evpl")
    evpl_set_timeout(${name} ${arg_TIMEOUT})
  endfunction()
  target_compile_definitions(rdma_tests PRIVATE VERBS_DOUBLE_PATH="${evpl_verbs_double}")
  add_dependencies(rdma_tests verbs_double)
  # Left out on the raw wire, as in the lab: tests that send faster than anybody receives, or larger messages than its receives; nothing but the
  # device's finite patience holds such a sender. And one that counts on an orderly end behind all bytes, which its users have to agree on.
  evpl_add_verbs_test(conformance_rdma_plain conformance_tests
    "*/rdma*-*TransferTest*/rdma_raw:*DrainsBeforeItStops/rdma_raw" "seed=1" TIMEOUT 180)
  # As many receives as 400 ends in one loop are sure of, and no more: an eighth of them (src/transport/rdma/README.md, Limits).
  evpl_add_verbs_test(conformance_rdma_rough conformance_tests "*/rdma:*/rdma_msg"
    "seed=7,async,reorder,cqe=6800,srq=3400,late_established=2,late_disconnected=3,rnr_every=500" TIMEOUT 180)
endif()

# Programs whose n-th call fails, and what makes it fail: preloaded, so it must not bring a sanitizer of its own.
add_library(failonce_shim MODULE ${PROJECT_SOURCE_DIR}/tests/failonce/shim.c)
target_compile_options(failonce_shim PRIVATE -fno-sanitize=all)
if(EVPL_SANITIZE)
  target_compile_definitions(failonce_shim PRIVATE FAILONCE_LEAVES_MEMORY)
endif()
target_link_options(failonce_shim PRIVATE -fno-sanitize=all)
target_link_libraries(failonce_shim PRIVATE ${CMAKE_DL_LIBS})
add_executable(failonce_program ${PROJECT_SOURCE_DIR}/tests/failonce/scenarios.cpp)
evpl_compile_as_check(failonce_program)
target_link_libraries(failonce_program PRIVATE evpl_test_support)
# What the library says while it works in a strict container.
add_executable(logged_echo ${PROJECT_SOURCE_DIR}/tests/container/logged_echo.cpp)
evpl_compile_as_check(logged_echo)
target_link_libraries(logged_echo PRIVATE evpl_test_support)
set_target_properties(failonce_shim failonce_program logged_echo PROPERTIES
  LIBRARY_OUTPUT_DIRECTORY ${PROJECT_BINARY_DIR}/tests RUNTIME_OUTPUT_DIRECTORY ${PROJECT_BINARY_DIR}/tests)

# The explorer's instrumentation takes the place of a sanitizer's, and is GCC's.
if(evpl_gcc AND NOT EVPL_SANITIZE AND NOT EVPL_COVERAGE)
  include(EvplRace)
endif()

# What was added to the code in this build, for scripts that count or time it.
set(evpl_added "${EVPL_SANITIZE}")
if(EVPL_COVERAGE)
  set(evpl_added coverage)
endif()

# tests/<folder>/*_test.{py,sh} run as they are. Exit code 77 and a line "SKIP: <reason>" mean: not possible here.
function(evpl_add_script_test test)
  cmake_parse_arguments(arg "SERIAL" "TIMEOUT" "COMMAND;LABELS" ${ARGN})
  add_test(NAME ${test} COMMAND ${arg_COMMAND} WORKING_DIRECTORY ${PROJECT_SOURCE_DIR})
  set_tests_properties(${test} PROPERTIES SKIP_RETURN_CODE 77 LABELS "${arg_LABELS}" ENVIRONMENT
    "EVPL_COMMAND=${PROJECT_BINARY_DIR}/bin/evpl;EVPL_BUILD=${PROJECT_BINARY_DIR};EVPL_SANITIZE=${evpl_added}")
  evpl_set_timeout(${test} ${arg_TIMEOUT})
  if(arg_SERIAL)
    set_tests_properties(${test} PROPERTIES RUN_SERIAL ON)
  endif()
endfunction()

if(TARGET capi_c_test)
  evpl_add_script_test(capi/plain_c TIMEOUT 60 LABELS capi COMMAND capi_c_test)
endif()

# Those that neither load the machine nor measure: they may run beside others. With a sanitizer the command is given ten times as long.
set(evpl_quiet_scripts abi docs install lab style xlio)
if(EVPL_SANITIZE)
  list(APPEND evpl_quiet_scripts tool)
endif()
# Those that run nothing of what was built here: one kind of build is enough.
set(evpl_static_scripts abi docs install lab race style)
file(GLOB script_tests CONFIGURE_DEPENDS RELATIVE ${PROJECT_SOURCE_DIR}/tests
  ${PROJECT_SOURCE_DIR}/tests/*/*_test.py ${PROJECT_SOURCE_DIR}/tests/*/*_test.sh)
foreach(script IN LISTS script_tests)
  cmake_path(GET script PARENT_PATH folder)
  cmake_path(GET script STEM name)
  if(EVPL_SANITIZE AND folder IN_LIST evpl_static_scripts)
    continue()
  endif()
  set(serial SERIAL)
  if(folder IN_LIST evpl_quiet_scripts)
    set(serial "")
  endif()
  set(interpreter bash)
  if(script MATCHES "\\.py$")
    # Before ctest loses its patience, SIGABRT makes Python write the stacks of all its threads.
    math(EXPR watchdog_s "120 * ${EVPL_TIMEOUT_FACTOR} - 10")
    set(interpreter timeout --signal=ABRT --kill-after=5 ${watchdog_s} ${Python3_EXECUTABLE} -X faulthandler)
  endif()
  evpl_add_script_test(${folder}/${name} TIMEOUT 120 LABELS ${folder} ${serial}
    COMMAND ${interpreter} ${PROJECT_SOURCE_DIR}/tests/${script})
endforeach()

# Every public header compiles alone, and twice; evpl.h as C as well. One kind of build is enough.
set(header_checks "")
set(checked_headers ${evpl_headers})
if(EVPL_SANITIZE)
  set(checked_headers "")
endif()
foreach(header IN LISTS checked_headers)
  cmake_path(GET header FILENAME name)
  cmake_path(GET header EXTENSION extension)
  set(languages cpp)
  if(extension STREQUAL ".h")
    list(APPEND languages c)
  endif()
  foreach(language IN LISTS languages)
    set(check ${PROJECT_BINARY_DIR}/header-checks/${name}.${language})
    file(CONFIGURE OUTPUT ${check} @ONLY CONTENT "#include <evpl/@name@>\n#include <evpl/@name@>\n")
    list(APPEND header_checks ${check})
  endforeach()
endforeach()
if(header_checks)
  add_library(header_checks OBJECT ${header_checks})
  evpl_compile_as_check(header_checks)
  set_target_properties(header_checks PROPERTIES C_STANDARD 11 C_EXTENSIONS OFF)
  target_include_directories(header_checks PRIVATE ${PROJECT_SOURCE_DIR}/include)
endif()

evpl_add_script_test(includes TIMEOUT 60 LABELS style
  COMMAND ${Python3_EXECUTABLE} ${PROJECT_SOURCE_DIR}/scripts/check_includes.py ${PROJECT_SOURCE_DIR})
evpl_add_script_test(includes_self_test TIMEOUT 60 LABELS style
  COMMAND ${Python3_EXECUTABLE} ${PROJECT_SOURCE_DIR}/scripts/check_includes.py --self-test)
evpl_add_script_test(reliability TIMEOUT 60 LABELS style
  COMMAND ${Python3_EXECUTABLE} ${PROJECT_SOURCE_DIR}/scripts/reliability.py --check)
evpl_add_script_test(summary_self_test TIMEOUT 60 LABELS style
  COMMAND ${Python3_EXECUTABLE} ${PROJECT_SOURCE_DIR}/scripts/summarise_tests.py --self-test)

# A consumer of the installed library would need the same sanitizers: once, without, is enough.
if(EVPL_INSTALL AND NOT EVPL_SANITIZE AND NOT EVPL_COVERAGE)
  foreach(way find_package pkg_config pkg_config_static add_subdirectory fetch_content)
    evpl_add_script_test(install/${way} TIMEOUT 600 LABELS install
      COMMAND bash ${PROJECT_SOURCE_DIR}/tests/install/consume.sh ${way} ${PROJECT_BINARY_DIR}
              ${CMAKE_CXX_COMPILER} ${PROJECT_VERSION})
  endforeach()
endif()
