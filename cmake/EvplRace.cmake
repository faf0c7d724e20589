# tests/race: the explorer of interleavings. Some sources of the library, and the scenarios, compiled with the instrumentation that is
# meant for ThreadSanitizer and linked with a runtime of our own; the rest comes from the library. And the same with a mistake put in.

set(race_folder ${PROJECT_SOURCE_DIR}/tests/race)
set(race_copies ${PROJECT_BINARY_DIR}/race/copies)
execute_process(COMMAND ${Python3_EXECUTABLE} ${race_folder}/mutants.py ${PROJECT_SOURCE_DIR} ${race_copies} COMMAND_ERROR_IS_FATAL ANY)
include(${race_copies}/mutants.cmake)
set_property(DIRECTORY APPEND PROPERTY CMAKE_CONFIGURE_DEPENDS ${race_originals} ${race_folder}/mutants.py)

function(evpl_compile_for_race target copy)
  evpl_compile_like_us(${target})
  target_compile_options(${target} PRIVATE -O1 -g)
  target_compile_definitions(${target} PRIVATE $<$<BOOL:${EVPL_DEBUG}>:EVPL_DEBUG=1>)
  target_include_directories(${target} PRIVATE ${race_copies}/${copy}/src ${race_copies}/true/src
    ${PROJECT_SOURCE_DIR}/src ${PROJECT_SOURCE_DIR}/include ${race_folder})
endfunction()
function(evpl_instrument_for_race target)
  target_compile_options(${target} PRIVATE -fsanitize=thread --param=tsan-instrument-func-entry-exit=0 -Wno-tsan
    -fno-builtin-memcpy -fno-builtin-memset)  # expanded later than instrumented, they would be seen by nobody
endfunction()
# The first objects win where several define an inline function.
function(evpl_race_program program)
  set_target_properties(${program} PROPERTIES RUNTIME_OUTPUT_DIRECTORY ${PROJECT_BINARY_DIR}/race LINKER_LANGUAGE CXX)
  target_link_libraries(${program} PRIVATE evpl_static Threads::Threads ${CMAKE_DL_LIBS})
  target_link_options(${program} PRIVATE -no-pie
    LINKER:--wrap=memcpy,--wrap=memset,--wrap=pthread_mutex_lock,--wrap=pthread_mutex_unlock,--wrap=sched_yield,--wrap=free,--wrap=write)
endfunction()

add_library(race_explorer OBJECT ${race_folder}/explorer.cpp ${race_folder}/runtime.cpp)
evpl_compile_for_race(race_explorer true)
file(GLOB race_sources CONFIGURE_DEPENDS ${race_folder}/*_scenarios.cpp ${PROJECT_SOURCE_DIR}/src/memory/*.cpp
  ${PROJECT_SOURCE_DIR}/src/transport/inproc/*.cpp)
list(APPEND race_sources ${PROJECT_SOURCE_DIR}/src/core/mailbox.cpp ${PROJECT_SOURCE_DIR}/src/transport/bell.cpp)
evpl_compile_alone(${race_sources})
add_library(race_objects OBJECT ${race_sources} ${race_folder}/main.cpp)
evpl_compile_for_race(race_objects true)
evpl_instrument_for_race(race_objects)
add_executable(race_program $<TARGET_OBJECTS:race_explorer> $<TARGET_OBJECTS:race_objects>)
evpl_race_program(race_program)

foreach(mutant IN LISTS race_mutants)
  add_library(race_objects_${mutant} OBJECT ${race_units_${mutant}})
  evpl_compile_for_race(race_objects_${mutant} ${mutant})
  evpl_instrument_for_race(race_objects_${mutant})
  # Of the true objects those are left out that the mutant has anew.
  set(others $<TARGET_OBJECTS:race_objects>)
  foreach(unit IN LISTS race_units_${mutant})
    cmake_path(GET unit FILENAME name)
    set(others $<FILTER:${others},EXCLUDE,/${name}\\.o$>)
  endforeach()
  add_executable(race_${mutant} $<TARGET_OBJECTS:race_objects_${mutant}> $<TARGET_OBJECTS:race_explorer> ${others})
  evpl_race_program(race_${mutant})
endforeach()
