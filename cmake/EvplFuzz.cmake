# tests/fuzz/<name>_fuzz.cpp: a libFuzzer program where EVPL_FUZZ is on; elsewhere a program that replays
# tests/fuzz/corpus/<name>/ with the tests.

# Targets that play on the stage of the simulation tests.
find_package(GTest REQUIRED)
set(evpl_program_fuzz_sources ${PROJECT_SOURCE_DIR}/tests/sim/actor.cpp ${PROJECT_SOURCE_DIR}/tests/sim/stage.cpp)

# Targets that are replayed with each allocation failing; what is given are further arguments. Random programs choose by themselves
# which of their allocations fail (tests/sim); the network that framing plays on is a test's and needs its memory; addresses and
# greetings of RDMA are read in place, without any.
set(evpl_config_fuzz_without_memory "")
set(evpl_endpoint_fuzz_without_memory "")
set(evpl_unix_control_fuzz_without_memory --inputs 12)
set(evpl_dns_fuzz_without_memory --inputs 3)
set(evpl_servers_fuzz_without_memory --inputs 6)

# Calls of the system that a target answers itself.
set(evpl_servers_fuzz_wraps socket bind listen accept4 connect recv recvmsg send sendmsg epoll_ctl epoll_wait epoll_pwait2 setsockopt getsockopt
  getsockname getpeername shutdown close)

file(GLOB fuzz_sources CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/tests/fuzz/*_fuzz.cpp)
if(EVPL_FUZZ AND NOT CMAKE_CXX_COMPILER_ID MATCHES "Clang")
  message(FATAL_ERROR "EVPL_FUZZ needs clang, this is ${CMAKE_CXX_COMPILER_ID}")
endif()
foreach(source IN LISTS fuzz_sources)
  cmake_path(GET source STEM program)
  string(REGEX REPLACE "_fuzz$" "" name ${program})
  add_executable(${program} ${source} ${evpl_${program}_sources})
  evpl_compile_like_us(${program})
  set_target_properties(${program} PROPERTIES RUNTIME_OUTPUT_DIRECTORY ${PROJECT_BINARY_DIR}/fuzz)
  target_include_directories(${program} PRIVATE ${PROJECT_SOURCE_DIR}/src ${PROJECT_SOURCE_DIR}/tests)
  target_link_libraries(${program} PRIVATE evpl_static fmt::fmt-header-only GTest::gtest Threads::Threads)
  if(evpl_${program}_wraps)
    list(TRANSFORM evpl_${program}_wraps PREPEND "LINKER:--wrap=" OUTPUT_VARIABLE wraps)
    target_link_options(${program} PRIVATE ${wraps})
  endif()
  if(EVPL_FUZZ)
    target_link_options(${program} PRIVATE -fsanitize=fuzzer)
  else()
    target_sources(${program} PRIVATE ${PROJECT_SOURCE_DIR}/tests/fuzz/replay_main.cpp)
    evpl_add_script_test(fuzz/${name} TIMEOUT 60 LABELS fuzz
      COMMAND ${program} ${PROJECT_SOURCE_DIR}/tests/fuzz/corpus/${name})
    if(DEFINED evpl_${program}_without_memory AND NOT EVPL_SANITIZE)
      evpl_add_script_test(fuzz/${name}_without_memory TIMEOUT 120 LABELS fuzz
        COMMAND ${CMAKE_COMMAND} -E env LD_PRELOAD=$<TARGET_FILE:failonce_shim>
                $<TARGET_FILE:${program}> --without-memory ${evpl_${program}_without_memory} ${PROJECT_SOURCE_DIR}/tests/fuzz/corpus/${name})
    endif()
  endif()
endforeach()
