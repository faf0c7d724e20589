include_guard(GLOBAL)
# A stand-in for NVIDIA's libxlio, loaded at run time like the real one; exports what that one does. The same conformance suite runs over it.
add_library(xlio_double MODULE ${PROJECT_SOURCE_DIR}/tests/xlio_double/double.cpp
  ${PROJECT_SOURCE_DIR}/tests/xlio_double/memory.cpp)
evpl_compile_as_check(xlio_double)
set_target_properties(xlio_double PROPERTIES CXX_VISIBILITY_PRESET hidden VISIBILITY_INLINES_HIDDEN ON
  LIBRARY_OUTPUT_DIRECTORY ${PROJECT_BINARY_DIR}/tests LINK_DEPENDS ${PROJECT_SOURCE_DIR}/tests/xlio_double/exports.map)
target_link_options(xlio_double PRIVATE LINKER:--version-script=${PROJECT_SOURCE_DIR}/tests/xlio_double/exports.map)
target_link_libraries(xlio_double PRIVATE Threads::Threads)
set(evpl_xlio_double ${PROJECT_BINARY_DIR}/tests/libxlio_double.so)

# The same as libxlio.a is: for what links the library, ours (EVPL_XLIO_STATIC) and NVIDIA's samples.
add_library(xlio_double_linked STATIC ${PROJECT_SOURCE_DIR}/tests/xlio_double/double.cpp
  ${PROJECT_SOURCE_DIR}/tests/xlio_double/memory.cpp ${PROJECT_SOURCE_DIR}/tests/xlio_double/linked.cpp)
evpl_compile_as_check(xlio_double_linked)
target_compile_definitions(xlio_double_linked PRIVATE XLIO_DOUBLE_LINKED=1)
set_target_properties(xlio_double_linked PROPERTIES ARCHIVE_OUTPUT_DIRECTORY ${PROJECT_BINARY_DIR}/tests POSITION_INDEPENDENT_CODE ON)
target_link_libraries(xlio_double_linked PUBLIC Threads::Threads)

# What a message costs over it, next to a loop written by hand. It knows the inside, for the library's functions. It counts calls of malloc,
# which sanitizers replace.
if(NOT EVPL_SANITIZE)
  add_executable(xlio_pair ${PROJECT_SOURCE_DIR}/bench/xlio/pair.cpp)
  evpl_compile_like_us(xlio_pair)
  set_target_properties(xlio_pair PROPERTIES OUTPUT_NAME pair RUNTIME_OUTPUT_DIRECTORY ${PROJECT_BINARY_DIR}/bin/bench)
  target_include_directories(xlio_pair PRIVATE ${PROJECT_SOURCE_DIR}/src)
  target_link_libraries(xlio_pair PRIVATE evpl_static Threads::Threads ${CMAKE_DL_LIBS})
  add_dependencies(xlio_pair xlio_double)
endif()
