"""One experiment: a folder with `variant.yaml` and `training_params.json` becomes a result as PEFT's table reads it."""

from __future__ import annotations

import datetime
import platform
import tempfile
import time
from collections.abc import Callable, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, set_seed

import ctxpeft
from benchmarks.metamath.data import Sources, load_sets
from benchmarks.metamath.loop import Meter, train
from benchmarks.metamath.parameters import load_parameters
from ctxpeft.errors import HostError, SpecError
from ctxpeft.files import write_json

VARIANT = "variant.yaml"
PACKAGES = ("transformers", "peft", "datasets", "bitsandbytes", "torch", "ctxpeft")


def run_experiment(
    folder: Path,
    results: Path,
    sources: Sources,
    changes: Mapping[str, Any],
    say: Callable[[str], None],
    keep: Path | None = None,
) -> Path:
    """Run one experiment and write `RESULTS/METHOD--NAME.json`; what exists there is not run again.

    Args:
        folder: `.../METHOD/NAME` with `variant.yaml` and, where it departs from the defaults, `training_params.json`.
        results: the folder of results; that of a checkout of PEFT, say.
        sources: where the data are.
        changes: parameters of this run alone.
        say: progress.
        keep: where the trained adapter is saved; nowhere when None.

    Raises:
        SpecError: no variant in the folder, or a parameter that is not allowed.
        DataError, HostError: the data or the model cannot be had.
    """
    if not (folder / VARIANT).is_file():
        raise SpecError(f"{folder} holds no {VARIANT}: an experiment is a folder METHOD/NAME with one")
    variant = ctxpeft.load_variant(folder / VARIANT)
    parameters = load_parameters(folder, changes)
    path = results / f"{folder.parent.name}--{folder.name}.json"
    if path.is_file():
        say(f"{path} is there already")
        return path
    sets = load_sets(sources)
    say(f"{len(sets.train):,} training examples, {len(sets.test):,} test examples")
    created, started = datetime.datetime.now(datetime.UTC).replace(microsecond=0), time.perf_counter()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    set_seed(parameters.seed)
    meter = Meter(device)
    try:
        tokenizer = AutoTokenizer.from_pretrained(parameters.model_id)
        model: Any = AutoModelForCausalLM.from_pretrained(
            parameters.model_id,
            dtype=getattr(torch, parameters.dtype),
            attn_implementation=parameters.attn_implementation,
        )
    except Exception as error:  # transformers raises many types here, each of them "this cannot be loaded"
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise HostError(f"model '{parameters.model_id}' cannot be loaded: {reason}") from None
    tokenizer.pad_token = tokenizer.eos_token
    model = model.to(device)
    handle = ctxpeft.attach(model, variant, seed=parameters.seed)
    if parameters.use_gc:
        model.gradient_checkpointing_enable({"use_reentrant": False})
    say(handle.summary())
    metrics, train_time, _ = train(model, handle, tokenizer, sets, parameters, meter, say)
    with tempfile.TemporaryDirectory() as scratch:
        saved = keep or Path(scratch) / "adapter"
        handle.save(saved)
        size = (saved / "adapter.safetensors").stat().st_size
    reserved = meter.reserved or [0]
    result = {
        "run_info": {
            "created_at": created.isoformat(),
            "total_time": time.perf_counter() - started,
            "experiment_name": f"{folder.parent.name}/{folder.name}",
            "peft_branch": f"ctxpeft-{ctxpeft.__version__}",
            "train_config": parameters.model_dump(mode="json"),
            "peft_config": {
                "peft_type": f"CTXPEFT:{variant.name}",
                "base_model_name_or_path": parameters.model_id,
                "fingerprint": variant.fingerprint(),
                "variant": variant.to_dict(),
            },
            "error_msg": "",
        },
        "train_info": {
            "accelerator_memory_reserved_avg": int(sum(reserved) / len(reserved)),
            "accelerator_memory_max": meter.peak(),
            "accelerator_memory_reserved_99th": int(
                torch.tensor(reserved, dtype=torch.float64).quantile(0.99)
            ),
            "train_time": train_time,
            "file_size": size,
            "num_trainable_params": handle.num_parameters(),
            "num_total_params": sum(p.numel() for p in model.parameters()),
            "status": "success",
            "metrics": metrics,
        },
        "meta_info": _meta(parameters.model_id, sources),
    }
    write_json(path, result)
    say(f"written to {path}")
    return path


def _meta(model: str, sources: Sources) -> dict[str, Any]:
    """Versions, machine and where the data came from."""
    versions: dict[str, str | None] = {}
    for package in PACKAGES:
        try:
            versions[f"{package}-version"] = metadata.version(package)
        except metadata.PackageNotFoundError:
            versions[f"{package}-version"] = None
        versions[f"{package}-commit-hash"] = None
    return {
        "model_info": {"sha": None, "created_at": None},
        "dataset_info": {
            "metamath": {"sha": None, "created_at": None, "source": sources.metamath},
            "gsm8k": {"sha": None, "created_at": None, "source": sources.gsm8k},
        },
        "package_info": versions,
        "system_info": {
            "system": platform.system(),
            "release": platform.release(),
            "version": platform.version(),
            "machine": platform.machine(),
            "processor": platform.processor(),
            "accelerator": torch.cuda.get_device_name(0) if torch.cuda.is_available() else "none",
        },
        "pytorch_info": torch.__config__.show(),
    }
