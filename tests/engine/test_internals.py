"""What the engine needs of torch beyond its public interface stands in one place, and can be missing."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ENGINE = Path(__file__).parents[2] / "lightning_attack" / "engine"

WITHOUT = """
import logging, sys, types
import torch
{}
from lightning_attack.engine import prepare
logging.basicConfig()
network = torch.nn.Conv2d(3, 2, 1).requires_grad_(False).eval()
images = torch.rand(1, 3, 4, 5, requires_grad=True)
fast = prepare(network, images.detach(), kind="{}")
print(torch.equal(fast(images), network(images)), torch.autograd.grad(fast(images).sum(), images)[0].shape)
"""


IN_TURN = """
import os, sys
import torch
for code in sys.argv[1:]:
    if not os.fork():
        exec(code)
        sys.stdout.flush()
        os._exit(0)
    os.wait()
"""
"""Runs each code in a copy of a process that has imported torch and nothing else."""

REMOVED = [
    ("torch.ops.mkldnn = types.SimpleNamespace()", "'_convolution_pointwise'"),
    ("sys.modules['torch.fx.experimental.proxy_tensor'] = types.ModuleType('proxy_tensor')", "'make_fx'"),
]


def test_without_a_part_of_torch_networks_run_as_they_are():
    cases = [(removed, reason, kind) for removed, reason in REMOVED for kind in ("fused", "compiled")]
    codes = [WITHOUT.format(removed, kind) for removed, _, kind in cases]
    process = subprocess.run([sys.executable, "-c", IN_TURN, *codes], capture_output=True, text=True, check=True)
    assert process.stdout == len(cases) * "True torch.Size([1, 3, 4, 5])\n", process.stderr
    lines = [line for line in process.stderr.splitlines() if "engine" in line]
    for (_, reason, kind), line in zip(cases, lines, strict=True):
        assert f"'Conv2d' runs without the {kind} engine: torch " in line
        assert reason in line


@pytest.mark.parametrize("file", sorted(ENGINE.glob("*.py")), ids=lambda file: file.name)
def test_private_parts_of_torch_are_named_in_one_file(file):
    if file.name == "internals.py":
        return
    nodes = list(ast.walk(ast.parse(file.read_text())))
    modules = [node.module for node in nodes if isinstance(node, ast.ImportFrom)]
    assert not [name for name in modules if name.startswith("torch._") or "experimental" in name]
    dotted = [ast.unparse(node) for node in nodes if isinstance(node, ast.Attribute)]
    private = [name for name in dotted if name.startswith(("torch._", "torch.ops.mkldnn", "aten._"))]
    assert set(private) <= {"torch.__version__"}
