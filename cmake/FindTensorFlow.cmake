# Finds the TensorFlow of a Python interpreter, without importing it (an import takes seconds).
#
# Sets TensorFlow_VERSION, TensorFlow_DISTRIBUTION (the package's name: tensorflow, tensorflow-cpu)
# and the imported targets TensorFlow::framework (ops and kernels) and TensorFlow::cc (XLA).

find_package(Python COMPONENTS Interpreter REQUIRED)
execute_process(
  COMMAND "${Python_EXECUTABLE}" "${CMAKE_CURRENT_LIST_DIR}/find_tensorflow.py"
  OUTPUT_VARIABLE _tensorflow ERROR_VARIABLE _tensorflow_error
  RESULT_VARIABLE _tensorflow_result OUTPUT_STRIP_TRAILING_WHITESPACE)
if(NOT _tensorflow_result EQUAL 0)
  message(FATAL_ERROR "${_tensorflow_error}")
endif()
list(GET _tensorflow 0 TensorFlow_DIR)
list(GET _tensorflow 1 TensorFlow_DISTRIBUTION)
list(GET _tensorflow 2 TensorFlow_VERSION)

if(NOT EXISTS "${TensorFlow_DIR}/include/tensorflow/core/framework/op_kernel.h")
  message(FATAL_ERROR
    "TensorFlow ${TensorFlow_VERSION} in ${TensorFlow_DIR} comes without its C++ headers. "
    "Reinstall it: pip install --force-reinstall ${TensorFlow_DISTRIBUTION}==${TensorFlow_VERSION}")
endif()

include(FindPackageHandleStandardArgs)
find_package_handle_standard_args(TensorFlow
  REQUIRED_VARS TensorFlow_DIR TensorFlow_DISTRIBUTION VERSION_VAR TensorFlow_VERSION)

add_library(TensorFlow::framework INTERFACE IMPORTED)
if(TensorFlow_VERSION VERSION_LESS 2.20)
  target_include_directories(TensorFlow::framework SYSTEM INTERFACE
    "${CMAKE_CURRENT_SOURCE_DIR}/csrc/tf/tensorflow_2_19")
endif()
target_include_directories(TensorFlow::framework SYSTEM INTERFACE
  "${TensorFlow_DIR}/include"
  "${TensorFlow_DIR}/include/external/highwayhash"
  "${TensorFlow_DIR}/include/external/farmhash_archive/src")
# The wheels' own: a different alignment or ABI would corrupt tensors silently.
target_compile_definitions(TensorFlow::framework INTERFACE
  _GLIBCXX_USE_CXX11_ABI=1 EIGEN_MAX_ALIGN_BYTES=64)
target_compile_options(TensorFlow::framework INTERFACE -Wno-deprecated-declarations)
target_link_directories(TensorFlow::framework INTERFACE "${TensorFlow_DIR}")
target_link_libraries(TensorFlow::framework INTERFACE -l:libtensorflow_framework.so.2)

add_library(TensorFlow::cc INTERFACE IMPORTED)
target_link_libraries(TensorFlow::cc INTERFACE TensorFlow::framework -l:libtensorflow_cc.so.2)
