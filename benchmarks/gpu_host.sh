#!/usr/bin/env bash
# Builds, checks and measures the CUDA kernels on a machine with a GPU, nvcc, CMake, Ninja, pybind11,
# NumPy, PyTorch, pytest, wrapt and ml_dtypes; no TensorFlow. Arguments go to gpu.py. SANITIZE names
# tools of compute-sanitizer, or is 1 for all that matter; they come last. What hangs is stopped.
#   ARCH=90-real SANITIZE="memcheck racecheck" benchmarks/gpu_host.sh --quick
set -euo pipefail
if [ "${1:-}" = --help ]; then
  sed -n 's/^# //p' "$0"
  exit
fi
cd "$(dirname "$0")/.."
python=${PYTHON:-python3}
build=${BUILD:-build/gpu_host}
mkdir -p "$(dirname "$build")"

cmake -S . -B "$build" -GNinja -DLINREG_OPS_TENSORFLOW=OFF -DLINREG_OPS_CUDA=on \
  -DLINREG_OPS_CUDA_ARCHITECTURES="${ARCH:-native}" \
  -DPython_EXECUTABLE="$(command -v "$python")" \
  -Dpybind11_DIR="$("$python" -c 'import pybind11; print(pybind11.get_cmake_dir())')" \
  -DCMAKE_LIBRARY_OUTPUT_DIRECTORY="$PWD/linreg_ops" >"$build.log" 2>&1 || { cat "$build.log"; exit 1; }
cmake --build "$build"

export PYTHONPATH=$PWD
failed=0
timeout 300 "$python" -m pytest -q -p no:cacheprovider --tb=short --maxfail=10 \
  tests/test_cuda_kernels.py -k "gpu or torch" || failed=1
timeout "${BENCHMARK_SECONDS:-1200}" "$python" benchmarks/gpu.py "$@" || failed=1
tools=${SANITIZE:-}
[ "$tools" != 1 ] || tools="memcheck racecheck initcheck"
if [ -n "$tools" ] && ! command -v compute-sanitizer; then
  echo "SANITIZE: there is no compute-sanitizer"
  exit 1
fi
for tool in $tools; do
  echo "== compute-sanitizer --tool $tool"
  timeout 240 compute-sanitizer --tool "$tool" --error-exitcode 1 "$python" -m pytest -q \
    -p no:cacheprovider tests/test_cuda_kernels.py \
    -k "torch or gpu and (many_blocks or test_descent and not several)" | tail -5 || failed=1
done
exit "$failed"
