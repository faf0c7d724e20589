# The command `evpl`, linked with the static library so that it runs from anywhere.

file(GLOB evpl_tool_sources CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/tools/evpl/*.cpp)
if(evpl_tool_sources)
  find_package(CLI11 REQUIRED)
  find_package(nlohmann_json REQUIRED)
  add_executable(evpl-command ${evpl_tool_sources})
  evpl_compile_as_check(evpl-command)
  evpl_precompile(evpl-command ${PROJECT_SOURCE_DIR}/tools/evpl/precompiled.hpp)
  evpl_compile_together(evpl-command)
  if(EVPL_LTO AND evpl_gcc)
    target_compile_options(evpl-command PRIVATE -fno-fat-lto-objects)  # nobody else links them: one compilation, not two
  endif()
  set_target_properties(evpl-command PROPERTIES OUTPUT_NAME evpl RUNTIME_OUTPUT_DIRECTORY ${PROJECT_BINARY_DIR}/bin)
  target_include_directories(evpl-command PRIVATE ${PROJECT_SOURCE_DIR}/tools/evpl)
  target_compile_definitions(evpl-command PRIVATE EVPL_XLIO_PROBE="${evpl_xlio_probe_path}")
  target_link_libraries(evpl-command PRIVATE
    evpl_static CLI11::CLI11 nlohmann_json::nlohmann_json fmt::fmt-header-only Threads::Threads)
endif()

# Tries libxlio in a process of its own, for the library and for `evpl selftest`. It knows the backend's declarations.
add_executable(evpl_xlio_probe ${PROJECT_SOURCE_DIR}/tools/xlio_probe/main.cpp ${PROJECT_SOURCE_DIR}/tools/xlio_probe/field.cpp
  ${PROJECT_SOURCE_DIR}/tools/xlio_probe/rules.cpp)
set_target_properties(evpl_xlio_probe PROPERTIES RUNTIME_OUTPUT_DIRECTORY ${PROJECT_BINARY_DIR}/libexec OUTPUT_NAME evpl-xlio-probe)
evpl_compile_as_check(evpl_xlio_probe)
target_include_directories(evpl_xlio_probe PRIVATE ${PROJECT_SOURCE_DIR}/src ${PROJECT_SOURCE_DIR}/tools/xlio_probe)
target_link_libraries(evpl_xlio_probe PRIVATE evpl_static ${CMAKE_DL_LIBS})
