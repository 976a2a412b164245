"""Why something failed, from what real programs printed: each case's right value stands beside its log (expected.md)."""

from __future__ import annotations

from pathlib import Path

import pytest

from ansible_collections.lockstep.vllm.plugins.module_utils.core import causes
from ansible_collections.lockstep.vllm.plugins.module_utils.core.causes import CauseKind

FIXTURES = Path(__file__).parents[2] / "fixtures"


def case(name: str) -> list[str]:
    return (FIXTURES / "cases" / name / "engine.log").read_text(encoding="utf-8").splitlines()


def log(name: str) -> list[str]:
    return (FIXTURES / "vllm/0.32.0" / name).read_text(encoding="utf-8").splitlines()


CASES = {
    "log-gloo-barrier-half-hour": (
        CauseKind.TIMEOUT,
        "RuntimeError: Application timeout caused pair closure: Timed out waiting 1800000ms for recv operation to complete, "
        "in in_the_same_node_as",
    ),
    "log-ib-gid-timeout": (
        CauseKind.ECHO,
        "RuntimeError: NCCL error: remote process exited or there was a network error: NET/IB: Got completion from peer "
        "10.0.0.14<41001> with status=IBV_WC_RETRY_EXC_ERR(12)",
    ),
    "log-mnnvl-imex": (
        CauseKind.NCCL,
        "RuntimeError: NCCL error: unhandled system error: MNNVL (cliqueSize 8) is available but not working on this system. "
        "Check the IMEX channel configuration (/dev/nvidia-caps-imex-channels). Set NCCL_MNNVL_ENABLE=0",
    ),
    "log-nccl-capture-refused": (
        CauseKind.NCCL,
        "RuntimeError: NCCL error: invalid usage: NCCL cannot be captured in a graph if either it wasn't built with CUDA",
    ),
    "log-nccl-connect-wordings": (
        CauseKind.ECHO,
        "RuntimeError: NCCL error: unhandled system error: ncclOsSocketStartConnect: connect to 10.0.0.14<41001> returned "
        "Connection refused",
    ),
    "log-nccl-last-error": (
        CauseKind.NCCL,
        "Failed to bind NVLink SHARP (NVLS) Multicast memory of size 2097152 : CUDA error 401 'the operation cannot be",
    ),
    "log-ptx-toolchain": (
        CauseKind.EXCEPTION,
        "torch.AcceleratorError: CUDA error: the provided PTX was compiled with an unsupported toolchain.",
    ),
    "log-ptxas-next-line": (
        CauseKind.COMPILER,
        "ptxas fatal: Value 'sm_121a' is not defined for option 'gpu-name'",
    ),
    "log-pydantic-value-error": (
        CauseKind.VALIDATION,
        "Total number of attention heads (128) must be divisible by tensor parallel size (7)",
    ),
    "log-rank-prefix": (CauseKind.EXCEPTION, "RuntimeError: NCCL error: unhandled cuda error"),
    "log-ray-memory-kill": (CauseKind.MEMORY, "a worker on 10.0.0.12 was killed for memory pressure (raylet)"),
    "log-registry-subprocess": (
        CauseKind.EXCEPTION,
        "ImportError: vllm.vllm_flash_attn requires the CUDA flash attention extensions (_vllm_fa2_C or _vllm_fa3_C)",
    ),
}


@pytest.mark.parametrize(("name", "kind", "text"), [(name, *right) for name, right in CASES.items()], ids=CASES)
def test_a_case_is_explained_by_its_cause(name: str, kind: CauseKind, text: str) -> None:
    found = causes.of_program(case(name))
    assert found.kind is kind
    assert found.text.startswith(text)
    assert "\n" not in found.text


REASONS = {
    "a real engine that died at its first completion": (
        log("dies_at_first_completion.log"),
        "RuntimeError: Worker failed with error 'Unsupported CPU attention configuration: head_dim=16 isa=2 kv_cache_idx=0'",
    ),
    "a real engine whose workers lack the model, reported through Ray": (
        log("dies_without_model.log"),
        "FileNotFoundError: No such file or directory: /srv/models/tiny/model.safetensors",
    ),
    "the cause comes before the generic end": (
        [
            "(EngineCore pid=9) ERROR 11-22 01:00:00 [core.py:9] Traceback (most recent call last):",
            "(EngineCore pid=9) ERROR 11-22 01:00:00 [c.py:9] torch.OutOfMemoryError: CUDA out of memory",
            "(APIServer pid=8) RuntimeError: Engine core initialization failed. See root cause above. Failed core proc(s): {}",
        ],
        "torch.OutOfMemoryError: CUDA out of memory",
    ),
    "Ray's colours and prefixes": (
        ["\x1b[36m(R pid=7, ip=10.0.0.12)\x1b[0m (W pid=7) ERROR 11-22 01:00:00 [x.py:1] ValueError: no such model"],
        "ValueError: no such model",
    ),
    "an argument that vLLM does not know": (
        ["usage: vllm serve [model_tag] [options]", "vllm serve: error: unrecognized arguments: --nonsense"],
        "unrecognized arguments: --nonsense",
    ),
    "NCCL's last error, as torch says it (pytorch/pytorch#177472)": (
        [
            "torch.distributed.DistBackendError: NCCL error in: /var/lib/jenkins/workspace/torch/csrc/distributed/c10d/NCCLUtils.cpp:"
            "93, unhandled cuda error (run with NCCL_DEBUG=INFO for details), NCCL version 2.29.3 ",
            "ncclUnhandledCudaError: Call to CUDA function failed. ",
            "Last error: ",
            "Failed to bind NVLink SHARP (NVLS) Multicast memory of size 2097152 : CUDA error 401 'the operation cannot be performed in"
            " the present state'. ",
        ],
        "Failed to bind NVLink SHARP (NVLS) Multicast memory of size 2097152 : CUDA error 401",
    ),
    "Ray's own words for a worker that was killed for memory (vllm-project/vllm#2669)": (
        [
            "Memory on the node (IP: 169.254.181.2, ID: 708c7baf966d59aa3f08299830c349ca055293ebb1c33d8e72cd3336) where the task (actor "
            "ID: 0dab4ab45f6c947201afac6d01000000, name=RayWorkerVllm.__init__, pid=308, memory used=11.15GB) was running was 12.49GB / "
            "13.15GB (0.950003), which exceeds the memory usage threshold of 0.95. Ray killed this worker (ID: "
            "79a553ea91fe46f95e8384ddf8a8f0a01e3418a975ecd0af983c7bb2) because it was the most recently scheduled task",
        ],
        "a worker on 169.254.181.2 was killed for memory pressure (raylet): 12.49GB / 13.15GB in use",
    ),
    "torch's watchdog (vllm-project/vllm#13535)": (
        [
            "(RayWorkerWrapper pid=270291, ip=10.175.94.190) [rank3]:[E219 08:58:32.606233339 ProcessGroupNCCL.cpp:616] [Rank 3] Watchdog "
            "caught collective operation timeout: WorkNCCL(SeqNum=31, OpType=ALLREDUCE, NumelIn=117440512, NumelOut=117440512, "
            "Timeout(ms)=600000) ran for 600031 milliseconds before timing out.",
        ],
        "collective operation timeout: WorkNCCL(SeqNum=31, OpType=ALLREDUCE",
    ),
    "ptxas without an exception (vllm-project/vllm#29469)": (
        [
            "(EngineCore_DP0 pid=93) Internal Triton PTX codegen error",
            "(EngineCore_DP0 pid=93) `ptxas` stderr:",
            "(EngineCore_DP0 pid=93) ptxas fatal   : Value 'sm_121a' is not defined for option 'gpu-name'",
        ],
        "ptxas fatal: Value 'sm_121a' is not defined for option 'gpu-name'",
    ),
    "ptxas older than Triton (triton-lang/triton#5929, its paths shortened)": (
        [
            "ptxas /tmp/tmpafhfmeeh.ptx, line 5; fatal   : Unsupported .version 8.6; current version is '8.5'",
            "ptxas fatal   : Ptx assembly aborted due to errors",
            "subprocess.CalledProcessError: Command '['/usr/local/cuda/bin/ptxas', '-lineinfo', '-v', '--gpu-name=sm_89', "
            "'/tmp/tmpafhfmeeh.ptx']' returned non-zero exit status 255.",
        ],
        "ptxas fatal: Unsupported .version 8.6; current version is '8.5'",
    ),
    "a GPU that lacks what a kernel needs (hitz-zentroa/GoLLIE#5)": (
        [
            "RuntimeError: Internal Triton PTX codegen error: ",
            "ptxas /tmp/compile-ptx-src-38da7f, line 91; error   : Feature '.bf16' requires .target sm_80 or higher",
            "ptxas /tmp/compile-ptx-src-38da7f, line 92; error   : Feature '.bf16' requires .target sm_80 or higher",
            "ptxas fatal   : Ptx assembly aborted due to errors",
        ],
        "ptxas error: Feature '.bf16' requires .target sm_80 or higher",
    ),
    "FlashInfer's build, of which ninja speaks first (flashinfer-ai/flashinfer#5479, #1532)": (
        [
            "(EngineCore pid=3164713) ERROR 09-23 10:35:19 [core.py:1374] RuntimeError: Ninja build failed. Ninja output:",
            "(EngineCore pid=3164713) ERROR 09-23 10:35:19 [core.py:1374] ninja: Entering directory "
            "`/home/xxx/.cache/flashinfer/0.6.18/86/cached_ops/sampling'",
            "(EngineCore pid=3164713) ERROR 09-23 10:35:19 [core.py:1374] nvcc fatal : Unknown option "
            "'-static-global-template-stub=false'",
            "(EngineCore pid=3164713) ERROR 09-23 10:35:19 [core.py:1374] ninja: build stopped: subcommand failed.",
            "(APIServer pid=1) RuntimeError: Engine core initialization failed. See root cause above. Failed core proc(s): {}",
        ],
        "nvcc fatal: Unknown option '-static-global-template-stub=false'",
    ),
    "FlashInfer's build without nvcc (vllm-project/vllm#36077)": (
        [
            "RuntimeError: Ninja build failed. Ninja output:",
            "/bin/sh: 1: :/usr/local/cuda-12.8/bin/nvcc: not found",
            "ninja: build stopped: subcommand failed.",
        ],
        "/bin/sh: 1: :/usr/local/cuda-12.8/bin/nvcc: not found",
    ),
    "Triton's build without Python's headers (gpustack/gpustack#1242)": (
        [
            "/tmp/tmp_bcihhdm/main.c:5:10: fatal error: Python.h: No such file or directory",
            "    5 | #include <Python.h>",
            "compilation terminated.",
            "subprocess.CalledProcessError: Command '['/usr/bin/gcc', '/tmp/tmp_bcihhdm/main.c']' returned non-zero exit status 1.",
        ],
        "/tmp/tmp_bcihhdm/main.c:5:10: fatal error: Python.h: No such file or directory",
    ),
    "an exception without a word (as vllm-project/vllm#25928: what the engine says of it is empty)": (
        [
            "(VllmWorker TP0 pid=2940) ERROR 09-30 14:00:26 [multiproc_executor.py:671] Traceback (most recent call last):",
            '(VllmWorker TP0 pid=2940) ERROR 09-30 14:00:26 [multiproc_executor.py:671]   File "/x/flashinfer.py", line 3, in build',
            "(VllmWorker TP0 pid=2940) ERROR 09-30 14:00:26 [multiproc_executor.py:671]     assert num_heads % 8 == 0",
            "(VllmWorker TP0 pid=2940) ERROR 09-30 14:00:26 [multiproc_executor.py:671]            ^^^^^^^^^^^^^^^^^^",
            "(VllmWorker TP0 pid=2940) ERROR 09-30 14:00:26 [multiproc_executor.py:671] AssertionError",
            "(EngineCore_DP0 pid=2936) ERROR 09-30 14:00:26 [core.py:712] RuntimeError: Worker failed with error '', please check the "
            "stack trace above for the root cause",
            "(APIServer pid=1) RuntimeError: Engine core initialization failed. See root cause above. Failed core proc(s): {}",
        ],
        "AssertionError from 'assert num_heads % 8 == 0', in build",
    ),
    "an exception without a word yields to one that has them": (
        [
            '  File "/x/a.py", line 3, in stop',
            "    raise TimeoutError",
            "TimeoutError",
            "ValueError: no such model",
        ],
        "ValueError: no such model",
    ),
    "a word alone is no exception's": (
        ["AssertionError", "RuntimeError: Engine core initialization failed. See root cause above."],
        "RuntimeError: Engine core initialization failed. See root cause above.",
    ),
    "a program that was asked to stop": (
        [
            '  File "/x/a.py", line 3, in wait',
            "    await served",
            "asyncio.exceptions.CancelledError",
            "RuntimeError: Engine core initialization failed. See root cause above.",
        ],
        "RuntimeError: Engine core initialization failed. See root cause above.",
    ),
    "a rank's prefix twice, by torch and by who started it (a public log of torch 2.7)": (
        [
            "(worker1, rank=1, pid=27522, ip=10.105.0.4) [rank4]: [rank4]: torch.distributed.DistBackendError: NCCL error in: "
            "/pytorch/torch/csrc/distributed/c10d/NCCLUtils.cpp:77, remote process exited or there was a network error, NCCL version "
            "2.26.2",
            "(worker1, rank=1, pid=27522, ip=10.105.0.4) [rank4]: [rank4]: ncclRemoteError: A call failed possibly due to a network "
            "error or a remote process exiting prematurely.",
            "(worker1, rank=1, pid=27522, ip=10.105.0.4) [rank4]: [rank4]: Last error:",
            "(worker1, rank=1, pid=27522, ip=10.105.0.4) [rank4]: [rank4]: socketPollConnect: connect returned Connection refused, "
            "exceeded error retry count (35)",
        ],
        "socketPollConnect: connect returned Connection refused, exceeded error retry count (35)",
    ),
    "one of a group of exceptions": (
        [
            "  | ExceptionGroup: unhandled errors in a TaskGroup (1 sub-exception)",
            "  +-+---------------- 1 ----------------",
            "    | ValueError: no such model",
        ],
        "ValueError: no such model",
    ),
    "a line that Ray shows once for several processes": (
        [
            "(RayWorkerWrapper pid=2757099) RuntimeError: Expected one of cpu, cuda, hpu, mtia, privateuseone device type at start of "
            "device string: npu [repeated 2x across cluster] (Ray deduplicates logs by default. Set RAY_DEDUP_LOGS=0 to disable log "
            "deduplication, or see https://docs.ray.io/en/master/ray-observability/user-guides/configure-logging.html)",
        ],
        "RuntimeError: Expected one of cpu, cuda, hpu, mtia, privateuseone device type at start of device string: npu",
    ),
    "a peer's broken connection comes first, what broke it later": (
        [
            "(W pid=1, ip=10.0.0.11) ERROR 11-22 01:00:00 [x.py:1] RuntimeError: NCCL error: remote process exited or there was a network "
            "error (run with NCCL_DEBUG=INFO for details)",
            "(W pid=2, ip=10.0.0.12) ERROR 11-22 01:00:01 [x.py:1] torch.OutOfMemoryError: CUDA out of memory",
        ],
        "torch.OutOfMemoryError: CUDA out of memory",
    ),
    "a field that pydantic names on a line of its own": (
        [
            "pydantic_core._pydantic_core.ValidationError: 1 validation error for ModelConfig",
            "dtype",
            "  Input should be 'auto', 'half' or 'float16' [type=literal_error, input_value='f8', input_type=str]",
            "    For further information visit https://errors.pydantic.dev/2.14/v/literal_error",
        ],
        "dtype: Input should be 'auto', 'half' or 'float16'",
    ),
    "an exception that ends in a colon goes on in the next line": (
        [
            "(A pid=1) RuntimeError: Worker failed with:",
            "(B pid=2) something else",
            "(A pid=1) no kernel image is available",
        ],
        "RuntimeError: Worker failed with: no kernel image is available",
    ),
    "only the generic end": (
        ["RuntimeError: Engine core initialization failed. See root cause above."],
        "RuntimeError: Engine core initialization failed. See root cause above.",
    ),
    "no exception at all": (
        ["(APIServer pid=8) INFO 11-22 01:00:00 [a.py:1] Loading weights took 3 s", ""],
        "Loading weights took 3 s",
    ),
    "no log at all": ([], "nothing"),
}


@pytest.mark.parametrize(("lines", "reason"), REASONS.values(), ids=REASONS.keys())
def test_failure_reason(lines: list[str], reason: str) -> None:
    found = causes.of_program(lines)
    assert found.text.startswith(reason)
    assert "[repeated" not in found.text
