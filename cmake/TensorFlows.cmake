# Finds the TensorFlows to build for, without importing them (see find_tensorflow.py).
#
# Sets TENSORFLOW_VERSIONS and, for each, TensorFlow_<version>_FOLDER; add_tensorflow(<version>)
# defines the imported target TensorFlow::<version>, with the headers and libraries of its wheel.

find_package(Python COMPONENTS Interpreter REQUIRED)
execute_process(
  COMMAND "${Python_EXECUTABLE}" "${CMAKE_CURRENT_LIST_DIR}/find_tensorflow.py"
  OUTPUT_VARIABLE _found ERROR_VARIABLE _error RESULT_VARIABLE _result
  OUTPUT_STRIP_TRAILING_WHITESPACE)
if(NOT _result EQUAL 0)
  message(FATAL_ERROR "${_error}")
endif()

set(TENSORFLOW_VERSIONS "")
string(REPLACE "\n" "|" _found "${_found}")
string(REPLACE ";" "," _found "${_found}")
string(REPLACE "|" ";" _lines "${_found}")
foreach(_line IN LISTS _lines)
  string(REGEX MATCH "^(.*),([^,]+),([^,]+)$" _ "${_line}")
  list(APPEND TENSORFLOW_VERSIONS "${CMAKE_MATCH_3}")
  set("TensorFlow_${CMAKE_MATCH_3}_FOLDER" "${CMAKE_MATCH_1}")
  message(STATUS "TensorFlow ${CMAKE_MATCH_3} (${CMAKE_MATCH_2}) in ${CMAKE_MATCH_1}")
endforeach()

function(add_tensorflow version)
  set(folder "${TensorFlow_${version}_FOLDER}")
  set(target "TensorFlow::${version}")
  add_library("${target}" INTERFACE IMPORTED)
  if(version VERSION_LESS 2.20)
    target_include_directories("${target}" SYSTEM INTERFACE
      "${CMAKE_CURRENT_SOURCE_DIR}/csrc/tf/tensorflow_2_19")
  endif()
  target_include_directories("${target}" SYSTEM INTERFACE
    "${folder}/include"
    "${folder}/include/external/highwayhash"
    "${folder}/include/external/farmhash_archive/src")
  # The wheels' own: a different alignment or ABI would corrupt tensors silently.
  target_compile_definitions("${target}" INTERFACE
    _GLIBCXX_USE_CXX11_ABI=1 EIGEN_MAX_ALIGN_BYTES=64)
  target_compile_options("${target}" INTERFACE -Wno-deprecated-declarations)
  # By path: two TensorFlows have libraries of the same name.
  target_link_libraries("${target}" INTERFACE
    "${folder}/libtensorflow_framework.so.2" "${folder}/libtensorflow_cc.so.2")
endfunction()
