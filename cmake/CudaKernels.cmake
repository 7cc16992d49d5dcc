# The CUDA half: LINREG_OPS_CUDA is auto (where there is a GPU, and nvcc), on, or off; the environment
# variable of the same name sets it in a pip build. Defines cuda_kernels, a library beside that of the
# CPU's kernels (when off, a stub that says "no CUDA" in each library that asks), and
# LINREG_OPS_CUDA_VERSION.
set(LINREG_OPS_CUDA "auto" CACHE STRING "Build the CUDA kernels: auto, on or off")
# Machine code for T4, A100 and H100/H200, and PTX that the driver compiles for newer GPUs.
set(LINREG_OPS_CUDA_ARCHITECTURES "75-real;80-real;90-real;90-virtual" CACHE STRING
  "CUDA architectures, as in CMAKE_CUDA_ARCHITECTURES")

set(_cuda_needs "nvcc of CUDA 12 or newer, from NVIDIA's toolkit (name it with the environment \
variable CUDACXX) or from PyPI: pip install 'nvidia-cuda-nvcc==13.0.*' 'nvidia-nvvm==13.0.*' \
'nvidia-cuda-crt==13.0.*' 'nvidia-cuda-runtime==13.0.*' 'nvidia-cuda-cccl==13.0.*'")
string(TOLOWER "${LINREG_OPS_CUDA}" _cuda)
if(NOT _cuda MATCHES "^(auto|on|off)$")
  message(FATAL_ERROR "LINREG_OPS_CUDA must be auto, on or off, got '${LINREG_OPS_CUDA}'")
endif()

# An empty string if there is none.
function(find_nvcc result)
  # The wheels unpack into site-packages/nvidia/cu13, one folder for the whole toolkit.
  execute_process(
    COMMAND "${Python_EXECUTABLE}" -c
      "import glob, sys; print(';'.join(f for p in sys.path for f in glob.glob(p + '/nvidia/cu1[3-9]/bin')))"
    OUTPUT_VARIABLE wheel OUTPUT_STRIP_TRAILING_WHITESPACE)
  if(DEFINED ENV{CUDACXX})
    find_program(nvcc "$ENV{CUDACXX}" NO_CACHE)
  else()
    find_program(nvcc nvcc NO_CACHE
      HINTS ENV CUDA_HOME ENV CUDA_PATH PATH_SUFFIXES bin PATHS /usr/local/cuda/bin ${wheel})
  endif()
  if(nvcc)
    set(${result} "${nvcc}" PARENT_SCOPE)
  else()
    set(${result} "" PARENT_SCOPE)
  endif()
endfunction()

set(_nvcc "")
# Compiling for a GPU takes minutes, so somebody must have one, or ask for it. The names are those
# of Linux's driver, and of the one that Windows lends to Linux.
set(_gpu FALSE)
foreach(_file /dev/nvidiactl /dev/nvidia0 /proc/driver/nvidia/version /dev/dxg)
  if(EXISTS "${_file}")
    set(_gpu TRUE)
  endif()
endforeach()
if(_cuda STREQUAL "on" OR (_cuda STREQUAL "auto" AND _gpu))
  find_nvcc(_nvcc)
  if(_cuda STREQUAL "on" AND NOT _nvcc)
    message(FATAL_ERROR "LINREG_OPS_CUDA=on, but there is no CUDA compiler. It needs ${_cuda_needs}")
  endif()
endif()

set(LINREG_OPS_CUDA_VERSION "")
if(NOT _nvcc)
  message(STATUS "CUDA kernels: no (LINREG_OPS_CUDA=${_cuda})")
  add_library(cuda_kernels STATIC csrc/kernels/cuda/unavailable.cc)
  target_include_directories(cuda_kernels PUBLIC csrc)
  return()
endif()

# nvcc from PyPI looks for its libraries in lib64, where the wheels have lib.
get_filename_component(_nvcc_real "${_nvcc}" REALPATH)
get_filename_component(_cuda_root "${_nvcc_real}/../.." ABSOLUTE)
if(_cuda_root MATCHES "/nvidia/cu[0-9]+$")
  set(ENV{LIBRARY_PATH} "${_cuda_root}/lib:$ENV{LIBRARY_PATH}")
endif()
set(CMAKE_CUDA_COMPILER "${_nvcc}" CACHE FILEPATH "nvcc")
set(CMAKE_CUDA_HOST_COMPILER "${CMAKE_CXX_COMPILER}" CACHE FILEPATH "nvcc's host compiler")
set(CMAKE_CUDA_ARCHITECTURES "${LINREG_OPS_CUDA_ARCHITECTURES}")
set(CMAKE_CUDA_STANDARD 17)
set(CMAKE_CUDA_STANDARD_REQUIRED ON)
enable_language(CUDA)
set(LINREG_OPS_CUDA_VERSION "${CMAKE_CUDA_COMPILER_VERSION}")
find_library(_cudart_static cudart_static NO_CACHE REQUIRED
  HINTS ${CMAKE_CUDA_TOOLKIT_INCLUDE_DIRECTORIES}/../lib ${_cuda_root}/lib64 ${_cuda_root}/lib
  PATHS ${CMAKE_CUDA_IMPLICIT_LINK_DIRECTORIES})
# What CMake would add of CUDA's libraries by itself.
set(CMAKE_CUDA_IMPLICIT_LINK_LIBRARIES "")
message(STATUS "CUDA kernels: ${_nvcc} ${LINREG_OPS_CUDA_VERSION}, for ${CMAKE_CUDA_ARCHITECTURES}")

# The GPU's code is most of the package: once, whatever the number of TensorFlows.
add_library(cuda_kernels SHARED
  csrc/host/gpu_memory.cc
  csrc/kernels/cuda/chunked.cu
  csrc/kernels/cuda/descent.cu
  csrc/kernels/cuda/fused_bfloat16.cu
  csrc/kernels/cuda/fused_float16.cu
  csrc/kernels/cuda/fused_float32.cu
  csrc/kernels/cuda/fused_float64.cu
  csrc/kernels/cuda/l2_loss_grad.cu
  csrc/kernels/cuda/plan.cc
  csrc/kernels/cuda/single_pass.cu
  csrc/kernels/cuda/tensor_bfloat16.cu
  csrc/kernels/cuda/tensor_float16.cu
  csrc/kernels/cuda/tensor_float32.cu)
target_include_directories(cuda_kernels
  PUBLIC csrc PRIVATE ${CMAKE_CUDA_TOOLKIT_INCLUDE_DIRECTORIES})
# Halves the library: 40 kernels for three architectures are 25 MB otherwise.
target_compile_options(cuda_kernels PRIVATE $<$<COMPILE_LANGUAGE:CUDA>:-Xfatbin=-compress-all>)
set_target_properties(cuda_kernels PROPERTIES
  OUTPUT_NAME linreg_ops_cuda DEFINE_SYMBOL "" LINKER_LANGUAGE CXX
  CUDA_RUNTIME_LIBRARY None CUDA_VISIBILITY_PRESET hidden CXX_VISIBILITY_PRESET default)
# The one unit of CUDA that others call.
set_source_files_properties(csrc/kernels/cuda/l2_loss_grad.cu PROPERTIES
  COMPILE_OPTIONS -Xcompiler=-fvisibility=default)
# The runtime is here alone, and its names stay inside: TensorFlow's library exports stubs of them.
target_link_libraries(cuda_kernels PRIVATE kernels "${_cudart_static}" dl rt Threads::Threads)
install_shared(cuda_kernels)
