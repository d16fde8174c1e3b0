"""What has to be in the environment before torch, vLLM or Prefect are imported. What the caller set stays."""

import logging
import os
import warnings
from pathlib import Path

FIXED = {
    "DO_NOT_TRACK": "1",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "180",
    "PREFECT_LOGGING_LEVEL": "CRITICAL",  # errors reach the user once, as messages of ours
    "PREFECT_LOGGING_INTERNAL_LEVEL": "CRITICAL",
    "VLLM_LOGGING_LEVEL": "ERROR",
    "VLLM_NO_USAGE_STATS": "1",
    "TORCH_CPP_LOG_LEVEL": "ERROR",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "TRANSFORMERS_VERBOSITY": "error",
    "TRL_EXPERIMENTAL_SILENCE": "1",
}
ON_CPU = {
    "OMP_NUM_THREADS": "1",  # more threads than free cores spin against each other, up to 100 times slower
    "OMP_WAIT_POLICY": "passive",
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    "VLLM_CPU_KVCACHE_SPACE": "1",
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
}


def prepare(offline: bool) -> None:
    """Set what is not set yet: quiet libraries, no telemetry, threads for a CPU.

    `offline`: all models are local folders, so no library has a reason to ask a hub.
    """
    values = dict(FIXED)
    if not Path("/proc/driver/nvidia/version").exists():
        values |= ON_CPU
    if offline:
        values |= {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1"}
    for name, value in values.items():
        os.environ.setdefault(name, value)
    # Loaded as a library, vLLM leaves its logger without a level; and it warns of its own use of torch.
    logging.getLogger("vllm").setLevel(os.environ["VLLM_LOGGING_LEVEL"])
    warnings.filterwarnings("ignore", category=FutureWarning, module=r"vllm\.")


def prepare_prefect(work: Path) -> None:
    """Prefect's state lies under `work` too."""
    home = work / "prefect"
    home.mkdir(parents=True, exist_ok=True)
    os.environ.setdefault("PREFECT_HOME", str(home))
    os.environ.setdefault("PREFECT_LOCAL_STORAGE_PATH", str(home / "storage"))
