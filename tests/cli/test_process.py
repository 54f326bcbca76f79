"""The command's process keeps freed memory, so that the next array finds its pages ready."""

import platform
import subprocess
import sys

import pytest

FAULTS = """
import resource
from diffussm.cli.process import prepare
prepare()
import torch
def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(5):
        torch.ones(16_000_000)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
for _ in range(8):
    faults()
print(faults())
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc has mallopt")
@pytest.mark.parametrize(("environment", "kept"), [({}, True), ({"MALLOC_ARENA_MAX": "4"}, False)])
def test_freed_arrays_are_used_again(environment, kept):
    out = subprocess.run([sys.executable, "-c", FAULTS], capture_output=True, env=environment)
    assert out.returncode == 0, out.stderr
    assert (int(out.stdout) < 100) == kept  # 5 arrays of 64 MB have 80 000 pages
