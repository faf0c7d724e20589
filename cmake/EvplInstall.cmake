# Headers, both libraries, the command, and what find_package() and pkg-config need.

include(GNUInstallDirs)
include(CMakePackageConfigHelpers)

install(DIRECTORY ${PROJECT_SOURCE_DIR}/include/evpl DESTINATION ${CMAKE_INSTALL_INCLUDEDIR}
  FILES_MATCHING PATTERN "*.hpp" PATTERN "*.h")
install(TARGETS evpl evpl_static ${evpl_modules} EXPORT evpl
  LIBRARY DESTINATION ${CMAKE_INSTALL_LIBDIR} ARCHIVE DESTINATION ${CMAKE_INSTALL_LIBDIR})
if(TARGET evpl-command)
  install(TARGETS evpl-command RUNTIME DESTINATION ${CMAKE_INSTALL_BINDIR})
  install(FILES ${PROJECT_SOURCE_DIR}/docs/man/evpl.1 DESTINATION ${CMAKE_INSTALL_MANDIR}/man1)
endif()
if(TARGET evpl_xlio_probe)
  install(TARGETS evpl_xlio_probe RUNTIME DESTINATION ${CMAKE_INSTALL_LIBDIR}/evpl)
endif()
install(FILES ${PROJECT_SOURCE_DIR}/docs/man/evpl.7 DESTINATION ${CMAKE_INSTALL_MANDIR}/man7)

if(evpl_lto AND evpl_gcc)
  # GCC's intermediate code is readable by the very same compiler only; the machine code beside it serves all.
  install(CODE "
    execute_process(COMMAND ${CMAKE_STRIP} --strip-debug -R .gnu.lto_* -R .gnu.debuglto_* -N __gnu_lto_slim -N __gnu_lto_v1
      \"\$ENV{DESTDIR}\${CMAKE_INSTALL_PREFIX}/${CMAKE_INSTALL_LIBDIR}/libevpl.a\" COMMAND_ERROR_IS_FATAL ANY)")
endif()

set(evpl_package_dir ${CMAKE_INSTALL_LIBDIR}/cmake/evpl)
install(EXPORT evpl NAMESPACE evpl:: FILE evplTargets.cmake DESTINATION ${evpl_package_dir})
configure_package_config_file(${PROJECT_SOURCE_DIR}/cmake/evplConfig.cmake.in ${PROJECT_BINARY_DIR}/package/evplConfig.cmake
  INSTALL_DESTINATION ${evpl_package_dir})
# Before 1.0 a minor version may break what was.
write_basic_package_version_file(${PROJECT_BINARY_DIR}/package/evplConfigVersion.cmake COMPATIBILITY SameMinorVersion)
install(FILES ${PROJECT_BINARY_DIR}/package/evplConfig.cmake ${PROJECT_BINARY_DIR}/package/evplConfigVersion.cmake
  DESTINATION ${evpl_package_dir})

# The prefix is named at install time, so the file finds its own place.
cmake_path(APPEND pc_dir ${CMAKE_INSTALL_LIBDIR} pkgconfig)
cmake_path(RELATIVE_PATH CMAKE_INSTALL_PREFIX BASE_DIRECTORY ${CMAKE_INSTALL_PREFIX}/${pc_dir} OUTPUT_VARIABLE pc_to_prefix)
set(pc_cflags "")
if(EVPL_DEBUG)
  set(pc_cflags -DEVPL_DEBUG=1)
endif()
set(pc_linked_in "")
if(EVPL_XLIO_STATIC)
  list(JOIN EVPL_XLIO_STATIC " " pc_linked_in)
  string(APPEND pc_linked_in " ")
endif()
configure_file(${PROJECT_SOURCE_DIR}/cmake/evpl.pc.in ${PROJECT_BINARY_DIR}/package/evpl.pc @ONLY)
install(FILES ${PROJECT_BINARY_DIR}/package/evpl.pc DESTINATION ${pc_dir})
