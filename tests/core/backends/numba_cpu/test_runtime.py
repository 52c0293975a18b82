import importlib.util
import logging
import sys
import threading

import numpy as np
import pytest
import torch
from lift3d.core.backends.numba_cpu import runtime

pytest.importorskip("numba")

KERNEL_SOURCE = """
from typing import Any, NamedTuple
import numba
from lift3d.core.backends.numba_cpu.runtime import compiled

class Pair(NamedTuple):
    first: Any
    second: Any

@compiled()
def first_of(pair):
    return pair.first

@compiled(parallel=True)
def double(values):
    out = np.empty_like(values)
    for i in numba.prange(values.shape[0]):
        out[i] = 2 * first_of(Pair(values[i], i))
    return out

import numpy as np
"""


@pytest.fixture
def load_kernel(tmp_path):
    path = tmp_path / "kernels_of_a_test.py"
    path.write_text(KERNEL_SOURCE)

    def load():
        runtime._announced.discard("kernels_of_a_test")
        spec = importlib.util.spec_from_file_location("kernels_of_a_test", path)
        module = importlib.util.module_from_spec(spec)
        sys.modules[spec.name] = module
        spec.loader.exec_module(module)
        return module.double

    yield load
    sys.modules.pop("kernels_of_a_test", None)


def test_first_run_is_announced_once_and_the_cached_second_is_silent(load_kernel, caplog):
    values = np.arange(5.0)
    with caplog.at_level(logging.WARNING):
        kernel = load_kernel()
        np.testing.assert_array_equal(runtime.run_kernel(kernel, values), 2 * values)
        runtime.run_kernel(kernel, values)
        assert [record.message for record in caplog.records] == [
            "Compiling CPU kernels (kernels_of_a_test), first run only ..."
        ]
        caplog.clear()
        np.testing.assert_array_equal(runtime.run_kernel(load_kernel(), values), 2 * values)
        assert not caplog.records


def test_parallel_kernels_may_be_started_from_many_threads(load_kernel):
    kernel, values = load_kernel(), np.arange(1000.0)
    failures = []

    def work():
        for _ in range(50):
            if not np.array_equal(runtime.run_kernel(kernel, values), 2 * values):
                failures.append("wrong result")

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures


def test_to_array_gives_contiguous_values_of_gradient_strided_and_inference_tensors():
    tensor = torch.arange(6.0).reshape(2, 3).requires_grad_()
    assert runtime.to_array(tensor.T, np.float32).flags.c_contiguous
    with torch.inference_mode():
        inference = torch.ones(3)
    np.testing.assert_array_equal(runtime.to_array(inference, np.float32), np.ones(3))


def test_code_cached_under_one_package_name_loads_under_another(tmp_path):
    """In ComfyUI the package is named after its folder, elsewhere `lift3d`: one cache serves both."""
    import subprocess
    from pathlib import Path

    path = tmp_path / "kernels_of_a_test.py"
    path.write_text(KERNEL_SOURCE)
    script = (
        "import importlib.util, sys; sys.path.insert(0, sys.argv[1]); import run;"
        "run.register_package();"
        "spec = importlib.util.spec_from_file_location(sys.argv[3], sys.argv[2]);"
        "module = importlib.util.module_from_spec(spec); sys.modules[spec.name] = module;"
        "spec.loader.exec_module(module);"
        "from lift3d.core.backends.numba_cpu.runtime import run_kernel; import numpy as np;"
        "print(run_kernel(module.double, np.ones(2)), dict(module.double.stats.cache_hits))"
    )
    root = Path(runtime.__file__).resolve().parents[3]
    outputs = [
        subprocess.run(
            [sys.executable, "-c", script, str(root), str(path), name],
            capture_output=True, text=True, check=True,
        ).stdout
        for name in ("first_pack.kernels_of_a_test", "second.kernels_of_a_test")
    ]  # fmt: skip
    assert all(output.startswith("[2. 2.]") for output in outputs)
    assert "(" in outputs[1].split("]")[1]  # the second process took the code from the disk
