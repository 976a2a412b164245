"""Copy from an environment's packages what vLLM with a small dense model and Ray need and the GPU machine lacks.

usage: keep_needed.py ENVIRONMENT SITE LIST-OF-PACKAGES-ON-THE-MACHINE
"""

import importlib.metadata as metadata
import re
import shutil
import sys
from pathlib import Path

environment, site, listed = map(Path, sys.argv[1:])


def norm(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


there = {norm(line) for line in listed.read_text().split()}
LEFT_OUT = re.compile(
    r"^(nvidia-cutlass|nvidia-cudnn-frontend|torchcodec|fastsafetensors|cuda-tile|humming|tilelang|quack|tokenspeed|pynvvideocodec"
    r"|pip$|setuptools$|tvm$|z3-solver)"
)
NOT_THESE = re.compile(
    r"_vllm_fa2_C|^vllm/third_party/deep_gemm/|ray/(jars|rllib|cpp|train|tune|llm|serve|data)/|ray/dashboard/client/"
    r"|flashinfer/data/(cutlass|spdlog|cccl)|\.cpython-31[0134]-"
    r"|__pycache__|/tests?/|pycountry/locales|mistral_common/data/.*(tekken|sentencepiece|tokenizer)|^\.\."
)
shutil.rmtree(site, ignore_errors=True)
total = 0
for found in metadata.distributions(path=[str(next((environment / "lib").glob("python3*")) / "site-packages")]):
    name = norm(found.metadata["Name"])
    if LEFT_OUT.match(name) or (name in there and name != "pyyaml") or re.match(r"nvidia-(?!ml)|(torch|triton)$", name):
        continue
    for file in found.files or []:
        source = Path(found.locate_file(file))
        if NOT_THESE.search(str(file)) or not source.is_file():
            continue
        target = site / str(file)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(source, target)
        total += source.stat().st_size
print(f"{total / 1e6:.0f} MB")
