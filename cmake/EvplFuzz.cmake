# tests/fuzz/<name>_fuzz.cpp: a libFuzzer program where EVPL_FUZZ is on; elsewhere a program that replays
# tests/fuzz/corpus/<name>/ with the tests, and with AddressSanitizer plays mutations of it for ten seconds.

# Targets that play on the stage of the simulation tests.
find_package(GTest REQUIRED)
set(evpl_program_fuzz_sources ${PROJECT_SOURCE_DIR}/tests/sim/actor.cpp ${PROJECT_SOURCE_DIR}/tests/sim/stage.cpp)

# Targets that are replayed with each allocation failing; what is given are further arguments. Random programs choose by themselves
# which of their allocations fail (tests/sim); addresses and greetings of RDMA are read in place, without any.
set(evpl_config_fuzz_without_memory "")
set(evpl_endpoint_fuzz_without_memory "")
set(evpl_unix_control_fuzz_without_memory --inputs 12)
set(evpl_dns_fuzz_without_memory --inputs 3)
set(evpl_servers_fuzz_without_memory --inputs 6)
set(evpl_framing_fuzz_without_memory "")
# The network that framing plays on is a test's and keeps its memory.
set(evpl_framing_fuzz_replay_sources ${PROJECT_SOURCE_DIR}/tests/fuzz/spared_new.cpp)

# Calls of the system that a target answers itself.
set(evpl_servers_fuzz_wraps socket bind listen accept4 connect recv recvmsg send sendmsg epoll_ctl epoll_wait epoll_pwait2 setsockopt getsockopt
  getsockname getpeername shutdown close)

file(GLOB fuzz_sources CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/tests/fuzz/*_fuzz.cpp)
if(EVPL_FUZZ AND NOT CMAKE_CXX_COMPILER_ID MATCHES "Clang")
  message(FATAL_ERROR "EVPL_FUZZ needs clang, this is ${CMAKE_CXX_COMPILER_ID}")
endif()

# The program of a target, and in front of the library's objects those of further sources.
function(evpl_fuzz_program program target folder)
  add_executable(${program} ${PROJECT_SOURCE_DIR}/tests/fuzz/${target}.cpp ${evpl_${target}_sources} ${ARGN})
  evpl_compile_as_check(${program})
  set_target_properties(${program} PROPERTIES RUNTIME_OUTPUT_DIRECTORY ${PROJECT_BINARY_DIR}/${folder})
  target_include_directories(${program} PRIVATE ${PROJECT_SOURCE_DIR}/src ${PROJECT_SOURCE_DIR}/tests)
  target_link_libraries(${program} PRIVATE evpl_static fmt::fmt-header-only GTest::gtest Threads::Threads)
  if(evpl_${target}_wraps)
    list(TRANSFORM evpl_${target}_wraps PREPEND "LINKER:--wrap=" OUTPUT_VARIABLE wraps)
    target_link_options(${program} PRIVATE ${wraps})
  endif()
  if(EVPL_FUZZ)
    target_link_options(${program} PRIVATE -fsanitize=fuzzer)
  else()
    target_sources(${program} PRIVATE ${PROJECT_SOURCE_DIR}/tests/fuzz/replay_main.cpp ${evpl_${target}_replay_sources})
  endif()
endfunction()

foreach(source IN LISTS fuzz_sources)
  cmake_path(GET source STEM program)
  string(REGEX REPLACE "_fuzz$" "" name ${program})
  evpl_fuzz_program(${program} ${program} fuzz)
  if(NOT EVPL_FUZZ)
    evpl_add_script_test(fuzz/${name} TIMEOUT 60 LABELS fuzz
      COMMAND ${program} ${PROJECT_SOURCE_DIR}/tests/fuzz/corpus/${name})
    if(EVPL_SANITIZE MATCHES "address")
      evpl_add_script_test(fuzz/${name}_mutated TIMEOUT 120 LABELS fuzz
        COMMAND ${program} --mutate 10 0 ${PROJECT_BINARY_DIR}/fuzz/found ${PROJECT_SOURCE_DIR}/tests/fuzz/corpus/${name})
    endif()
    if(DEFINED evpl_${program}_without_memory AND NOT EVPL_SANITIZE)
      evpl_add_script_test(fuzz/${name}_without_memory TIMEOUT 120 LABELS fuzz
        COMMAND ${CMAKE_COMMAND} -E env LD_PRELOAD=$<TARGET_FILE:failonce_shim>
                $<TARGET_FILE:${program}> --without-memory ${evpl_${program}_without_memory} ${PROJECT_SOURCE_DIR}/tests/fuzz/corpus/${name})
    endif()
  endif()
endforeach()

# A target that has to find a mistake: `file` of the library with `there` instead of `here`, which must stand in it once, so that mistakes do not
# rot. With libFuzzer they are built when they are asked for, in fuzz/mistakes.
function(evpl_fuzz_mistake mistake target file here there)
  set(original ${PROJECT_SOURCE_DIR}/src/${file})
  evpl_compile_alone(${original})
  set_property(DIRECTORY APPEND PROPERTY CMAKE_CONFIGURE_DEPENDS ${original})
  file(READ ${original} text)
  string(FIND "${text}" "${here}" first)
  string(FIND "${text}" "${here}" last REVERSE)
  if(first EQUAL -1 OR NOT first EQUAL last)
    message(FATAL_ERROR "the mistake ${mistake}: ${file} does not have once the text ${here}")
  endif()
  string(REPLACE "${here}" "${there}" text "${text}")
  set(copy ${PROJECT_BINARY_DIR}/fuzz/mistakes/${mistake}.cpp)
  file(CONFIGURE OUTPUT ${copy} CONTENT "${text}" @ONLY)
  evpl_fuzz_program(${mistake} ${target}_fuzz fuzz/mistakes ${copy})
  if(EVPL_FUZZ)
    set_target_properties(${mistake} PROPERTIES EXCLUDE_FROM_ALL ON)
  else()
    evpl_add_script_test(fuzz/finds/${mistake} TIMEOUT 60 LABELS fuzz
      COMMAND ${Python3_EXECUTABLE} ${PROJECT_SOURCE_DIR}/tests/fuzz/must_find.py $<TARGET_FILE:${mistake}> ${PROJECT_SOURCE_DIR}/tests/fuzz/corpus/${target})
  endif()
endfunction()

if(EVPL_FUZZ OR NOT EVPL_SANITIZE)
  set(sockets transport/common/sockets)
  evpl_fuzz_mistake(servers_forgets_what_was_not_sent servers ${sockets}/datapath.cpp
    "out.drop_front(std::size_t(sent))" "out.drop_front(asked)")
  evpl_fuzz_mistake(servers_keeps_descriptors servers ${sockets}/setup.cpp "else ::close(fd);" "else if (!link.read_ended) ::close(fd);")
  evpl_fuzz_mistake(framing_takes_any_length framing core/connection_events.cpp
    "if (frame.size_bytes > limits.message) return" "if (false) return")
  evpl_fuzz_mistake(framing_forgets_half_a_message framing core/connection_events.cpp
    "if (by_frames && message_bytes() < 0 && phase == Phase::open) {" "if (false) {")
endif()
