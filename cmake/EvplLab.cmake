# Tests that need a kernel of their own: `make lab` runs them in an emulated guest (docs/lab.md).

# evpl_add_lab_test(<name> [KERNEL 6.12|6.1] DEVICES none|dummy|veth SECONDS <n> [NIGHT] COMMAND <shell line>)
# One test of the list; NIGHT: only when LAB_TESTS=night. Exit code 77 and a line "SKIP: <reason>" mean: not possible here.
function(evpl_add_lab_test name)
  cmake_parse_arguments(arg "NIGHT" "KERNEL;DEVICES;SECONDS;COMMAND" "" ${ARGN})
  if(NOT arg_KERNEL)
    set(arg_KERNEL 6.12)
  endif()
  set(when always)
  if(arg_NIGHT)
    set(when night)
  endif()
  set_property(GLOBAL APPEND_STRING PROPERTY evpl_lab_tests
    "${arg_KERNEL}\t${arg_DEVICES}\t${arg_SECONDS}\t${when}\t${name}\t${arg_COMMAND}\n")
endfunction()

include(${PROJECT_SOURCE_DIR}/tests/lab/tests.cmake)

get_property(evpl_lab_tests GLOBAL PROPERTY evpl_lab_tests)
file(GENERATE OUTPUT ${PROJECT_BINARY_DIR}/lab-tests.txt CONTENT "${evpl_lab_tests}")
