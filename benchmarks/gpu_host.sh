#!/usr/bin/env bash
# Builds, checks and measures the CUDA half on a machine with a GPU, in steps of some minutes each:
#   benchmarks/gpu_host.sh OUT [build] [test] [measure] [sanitize]
# OUT is the folder of the results. Needs Python with NumPy, PyTorch, pytest, pytest-xdist, wrapt and
# ml_dtypes; to build (not where libraries are in linreg_ops/ already) nvcc, CMake, Ninja and pybind11 too; to
# sanitize, compute-sanitizer. ARCH is the GPU's architecture, for an H100 or H200 90-real (what it is
# by default): a build for another one runs older code, or none.
set -euo pipefail
if [ $# = 0 ] || [ "$1" = --help ]; then
  sed -n '2,8s/^# //p' "$0"
  exit
fi
mkdir -p "$1"
out=$(cd "$1" && pwd)
shift
cd "$(dirname "$0")/.."
python=${PYTHON:-python3}
export PYTHONPATH=$PWD
failed=0
# Warnings are not errors here: the host's PyTorch and Python are not those that the tests know.
pytest=("$python" -m pytest -q -p no:cacheprovider -W default)
for step in ${@:-build test measure}; do
  echo "== $step"
  case $step in
    build)
      build=${BUILD:-build/gpu_host}
      cmake -S . -B "$build" -GNinja -DLINREG_OPS_TENSORFLOW=OFF -DLINREG_OPS_CUDA=on \
        -DLINREG_OPS_CUDA_ARCHITECTURES="${ARCH:-90-real}" \
        -DPython_EXECUTABLE="$(command -v "$python")" \
        -Dpybind11_DIR="$("$python" -c 'import pybind11; print(pybind11.get_cmake_dir())')" \
        -DCMAKE_LIBRARY_OUTPUT_DIRECTORY="$PWD/linreg_ops" >"$out/build.log" 2>&1 &&
        cmake --build "$build" >>"$out/build.log" 2>&1 || { tail -20 "$out/build.log"; exit 1; }
      ;;
    test)
      "$python" -c 'from linreg_ops import kernels; print(kernels.cuda.device_properties())'
      timeout 300 "${pytest[@]}" --tb=short --maxfail=10 \
        tests/test_cuda_kernels.py -k "not sm_ and not random_problems and not calls_around" \
        2>&1 | tee "$out/test.log" || failed=1
      ;;
    measure)
      timeout 500 "$python" -m benchmarks.gpu --out "$out/gpu.json" 2>&1 |
        tee "$out/measure.log" || failed=1
      ;;
    sanitize)
      for tool in memcheck racecheck; do
        timeout 240 compute-sanitizer --tool "$tool" --error-exitcode 1 "${pytest[@]}" \
          tests/test_cuda_kernels.py \
          -k "many_blocks and gpu-float32 or test_descent and gpu and not sm_" \
          >"$out/$tool.log" 2>&1 || failed=1
        tail -3 "$out/$tool.log"
      done
      ;;
    *)
      echo "steps are build, test, measure and sanitize, got $step"
      exit 2
      ;;
  esac
done
exit "$failed"
