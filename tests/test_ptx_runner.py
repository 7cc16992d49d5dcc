"""The PTX runner sees what it is there to see: each fault is put into the compiled code."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from ptx_runner import build

HERE = Path(__file__).parent
# A descent of several blocks, whose rows are copied ahead, then rows that several warps share,
# copied ahead too, and rows that come straight to registers, in a process of its own: a fault that
# cannot be gone on from ends it.
SCRIPT = """
import sys, numpy as np
sys.path.insert(0, sys.argv[1])
from ptx_runner import load
from pathlib import Path
module = load(Path(sys.argv[2]))
module.machine().ptx_folder = sys.argv[3]
module.machine().seed = 1
def device(*shape):
    a = np.full(shape, 0.5, np.float32)
    return module.cuda.from_bytes(a.reshape(-1).view(np.uint8), "float32", shape)
x, w, y = device(20000, 5), device(5), device(20000)
module.cuda.gradient_descent(x, w, y, 1e-6, 2)
module.cuda.loss_and_grad(device(40, 5000), device(5000), device(40))
module.cuda.loss_and_grad(device(4000, 100), device(100), device(4000))
count, first = module.take_faults()
print(*first, sep="\\n")
sys.exit(count > 0)
"""


@pytest.fixture(scope="module")
def runner(request):
    return build(request.config.cache.mkdir("ptx_runner"))


def run(built, folder, script=SCRIPT):
    return subprocess.run(
        [sys.executable, "-c", script, HERE, built.module, f"{folder}"],
        capture_output=True,
        text=True,
        timeout=100,
    )


def test_no_fault_in_what_nvcc_made(runner):
    done = run(runner, runner.ptx(90))
    assert done.returncode == 0, done.stdout + done.stderr


def test_another_cuda_runtime_in_the_process(runner, tmp_path):
    """TensorFlow's library has one, which fails where there is no driver."""
    source, library = tmp_path / "runtime.c", tmp_path / "runtime.so"
    source.write_text("int cudaGetDevice(int* d) { *d = 0; return 302; }\n")
    subprocess.run(["g++", "-x", "c", source, "-shared", "-fPIC", "-o", library], check=True)
    loaded = f"import ctypes\nctypes.CDLL({str(library)!r}, ctypes.RTLD_GLOBAL)\n"
    done = run(runner, runner.ptx(90), script=loaded + SCRIPT)
    assert done.returncode == 0, done.stdout + done.stderr


def every(pattern, replacement, text):
    changed, count = re.subn(pattern, replacement, text)
    assert count > 0
    return changed


MUTATIONS = {
    "no block barriers": (r"bar\.sync\s+0;", "", "without a barrier between|that nobody wrote"),
    "no barriers of a row's warps": (r"bar\.sync %r\d+, %r\d+;", "", "that nobody wrote"),
    "partial sums through L1": (r"ld\.global\.cg\.f64", "ld.global.f64", "through L1"),
    "a vector in the wrong place": (
        r"(@p ld\.global\.v4\.u32 [^;]*\[%rd\d+)\]",
        r"\1+4]",
        "misaligned access to global memory",
    ),
    "a vector too far": (
        r"(@p ld\.global\.v4\.u32 [^;]*\[%rd\d+)\]",
        r"\1+4194304]",
        "global memory out of bounds",
    ),
    "a copy in the wrong place": (
        r"(@p cp\.async\.c[ag]\.shared\.global \[%r\d+) \+ 0\]",
        r"\1 + 8]",
        "misaligned access to shared memory",
    ),
    "sums that nobody stored": (r"st\.shared\.f32", "// st.shared.f32", "that nobody wrote"),
    "copies that nobody awaits": (
        r"cp\.async\.wait_group \d+;",
        "cp.async.wait_group 99;",
        r"ends before its cp\.async groups",
    ),
    "some lanes of a shuffle": (
        r"(shfl\.sync\.bfly\.b32[^;]*), [^,;]+;",
        r"\1, 65535;",
        "exchange among some lanes",
    ),
}


def faulty(runner, tmp_path, name, mutation, script=SCRIPT):
    """Runs PTX with a mutation in the unit `name`, which must fail with the mutation's message."""
    pattern, replacement, message = mutation
    folder = tmp_path / "ptx_90"
    shutil.copytree(runner.ptx(90), folder)
    file = folder / f"{name}.ptx"
    file.write_text(every(pattern, replacement, file.read_text()))
    done = run(runner, folder, script)
    assert done.returncode != 0
    assert re.search(message, done.stdout + done.stderr), done.stdout + done.stderr


@pytest.mark.parametrize("name", MUTATIONS)
def test_fault_is_seen(runner, tmp_path, name):
    faulty(runner, tmp_path, "fused_float32", MUTATIONS[name])


# Tiles of one warp, and of four.
TENSOR_SCRIPT = (
    SCRIPT[: SCRIPT.index("x, w, y = device")]
    + """
half = np.frombuffer(np.full(2000 * 256, 0x3F00, np.uint16), np.uint8)
def rows(n, d):
    return module.cuda.from_bytes(half[: 2 * n * d], "bfloat16", (n, d))
for n, d in (1600, 64), (1600, 256):
    assert module.cuda.plan(n, d, 8, "bfloat16")["route"] == "tensor_cores"
    module.cuda.loss_and_grad(rows(n, d), device(d, 8), device(n, 8))
count, first = module.take_faults()
print(*first, sep="\\n")
sys.exit(count > 0)
"""
)
TENSOR_MUTATIONS = {
    "no barriers of a tile's warps": (r"bar\.sync %r\d+, %r\d+;", "", "without a barrier between"),
    "no barriers of a warp": (r"bar\.warp\.sync[^;]*;", "", "without a barrier between"),
    "a tile awaited too late": (
        r"cp\.async\.wait_group 2;",
        "cp.async.wait_group 4;",
        "without a barrier between",
    ),
    "a tile in the wrong place": (
        r"(cp\.async\.cg\.shared\.global \[%r\d+) \+ 0\]",
        r"\1 + 8]",
        "misaligned access to shared memory",
    ),
}


def test_no_fault_in_the_tensor_cores_kernel(runner):
    done = run(runner, runner.ptx(90), script=TENSOR_SCRIPT)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("name", TENSOR_MUTATIONS)
def test_fault_of_the_tensor_cores_kernel_is_seen(runner, tmp_path, name):
    faulty(runner, tmp_path, "tensor_bfloat16", TENSOR_MUTATIONS[name], TENSOR_SCRIPT)


# The values of tensor cores' products and loads, by a program of its own.
@pytest.fixture(scope="module")
def tensor_cores(runner, tmp_path_factory):
    folder = tmp_path_factory.mktemp("tensor_cores")
    source = HERE / "cpp/cuda_tensor_cores_test.cu"
    kind = "-gencode=arch=compute_90,code=compute_90"
    keep = ["--keep", f"--keep-dir={folder}"]
    flags = ["-std=c++17", kind, f"-I{HERE}/cpp/ptx_runner", "-c", source]
    subprocess.run(["nvcc", *flags, *keep, "-o", folder / "host.o"], check=True)
    objects = [
        runner.folder / f"{f.name}.o"
        for f in sorted((HERE / "cpp/ptx_runner").glob("*.cc"))
        if f.name != "module.cc"
    ]
    program = folder / "program"
    subprocess.run(["g++", folder / "host.o", *objects, "-o", program], check=True)
    (ptx,) = folder.glob("*.ptx")
    return program, ptx.read_text()


def run_tensor_cores(program, text, folder):
    (folder / "all.ptx").write_text(text)
    return subprocess.run([program, folder], capture_output=True, text=True, timeout=100)


def test_products_of_tensor_cores(tensor_cores, tmp_path):
    done = run_tensor_cores(*tensor_cores, tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("pattern", "replacement", "said"),
    [
        (r"bar\.warp\.sync[^;]*;", "", "without a barrier between|that nobody wrote"),
        (r"(ldmatrix[^;]*x4[^;]*\[%r\d+)\]", r"\1+8]", "misaligned access to shared memory"),
        (r"x4\.trans", "x4", r"transposed: \[\d+, \d+\] is"),
        (r"x2\.trans", "x2", r"as it is: \[\d+, \d+\] is"),
    ],
)
def test_a_fault_in_tensor_cores_work_is_seen(tensor_cores, tmp_path, pattern, replacement, said):
    program, text = tensor_cores
    done = run_tensor_cores(program, every(pattern, replacement, text), tmp_path)
    assert done.returncode != 0
    assert re.search(said, done.stdout + done.stderr), done.stdout + done.stderr
