#!/usr/bin/env bash
# Builds, checks and measures the CUDA half on a machine with a GPU, in steps of less than ten
# minutes each:
#   ARCH=90-real benchmarks/gpu_host.sh OUT STEP...
# STEP is build, test, passes, trainings, ops, profile or sanitize; OUT is the folder of the logs
# and results. ARCH is the GPU's architecture, for an H100 or H200 90-real: a build for another one
# runs older code, or none. Needs Python with NumPy, PyTorch, pytest, pytest-xdist, wrapt and
# ml_dtypes; to build (not where libraries are in linreg_ops/ already) nvcc, CMake, Ninja and
# pybind11 too; for ops TensorFlow. DRY=1 goes no further than the first call of CUDA, which fails
# where there is no GPU: what can be tried there.
set -euo pipefail
if [ $# -lt 2 ]; then
  sed -n '2,11s/^# //p' "$0"
  exit 2
fi
mkdir -p "$1"
out=$(cd "$1" && pwd)
shift
cd "$(dirname "$0")/.."
python=${PYTHON:-python3}
export PYTHONPATH=$PWD
failed=0
# Warnings are not errors here: the host's PyTorch and Python are not those that the tests know.
pytest=("$python" -m pytest -q -W default tests/test_cuda_kernels.py)

# run SECONDS LOG COMMAND...: with its output in OUT/LOG too. In a dry run it is enough that the
# command ends at its first call of CUDA.
run() {
  local seconds=$1 log=$out/$2 status=0
  shift 2
  timeout "$seconds" "$@" 2>&1 | tee "$log" || status=$?
  if [ $status != 0 ] && [ -n "${DRY:-}" ] && grep -qE 'no GPU|no CUDA kernels|CUDA device' "$log"; then
    echo "dry: as far as CUDA"
  elif [ $status != 0 ]; then
    failed=1
  fi
}

for step in "$@"; do
  echo "== $step"
  case $step in
    build)
      build=${BUILD:-build/gpu_host}
      run 540 build.log cmake -S . -B "$build" -GNinja -DLINREG_OPS_TENSORFLOW=OFF \
        -DLINREG_OPS_CUDA=on -DLINREG_OPS_CUDA_ARCHITECTURES="${ARCH:?is the architecture of the GPU, as 90-real}" \
        -DPython_EXECUTABLE="$(command -v "$python")" \
        -Dpybind11_DIR="$("$python" -c 'import pybind11; print(pybind11.get_cmake_dir())')" \
        -DCMAKE_LIBRARY_OUTPUT_DIRECTORY="$PWD/linreg_ops"
      [ -n "${DRY:-}" ] || run 540 build.log cmake --build "$build"
      ;;
    test)
      run 60 device.log "$python" -c \
        'from linreg_ops import kernels; print(kernels.cuda.device_properties())'
      run 300 test.log "${pytest[@]}" --tb=short --maxfail=10 ${DRY:+--collect-only} \
        -k "not sm_ and not random_problems and not calls_around"
      ;;
    passes | trainings | ops)
      run 540 "$step.log" "$python" -m benchmarks.gpu --out "$out" --suite "gpu_$step" ${QUICK:+--quick}
      ;;
    profile)
      metrics=dram__bytes_read.sum,sm__inst_executed.sum,smsp__issue_active.avg.pct
      metrics+=,sm__warps_active.avg.pct_of_peak_sustained_active
      run 540 profile.log "${NCU:-ncu}" --clock-control none --metrics $metrics -k regex:FusedKernel -c 40 \
        "$python" -m benchmarks.gpu --out "$out/profile" --suite gpu_passes --quick
      ;;
    sanitize)
      for tool in memcheck racecheck; do
        run 240 "$tool.log" compute-sanitizer --tool "$tool" --error-exitcode 1 "${pytest[@]}" \
          -k "many_blocks and gpu-float32 or test_descent and gpu and not sm_"
      done
      ;;
    *)
      echo "steps are build, test, passes, trainings, ops, profile and sanitize, got $step"
      exit 2
      ;;
  esac
done
exit "$failed"
