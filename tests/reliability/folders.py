"""Adapter folders from strangers: refused in one sentence, nothing run, memory bounded, the model as it was.

    python -m tests.reliability folders

Every folder is a saved adapter with one thing changed. They are loaded one after another by a process of its own, whose
address space is limited and whose acts are watched.
"""

from __future__ import annotations

import json
import os
import pickle
import random
import resource
import shutil
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
import yaml
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

import ctxpeft
from ctxpeft.errors import CtxpeftError, one_line
from ctxpeft.testing.tiny import perturb, tiny_model
from tests.reliability.watch import watched

ROOM = 2 << 30  # bytes of address space beyond what the process has when it begins
GIANT = 600 << 20  # bytes of a file that is mostly a hole; reading it would be seen in the resident memory
GROWTH = 128 << 20  # bytes of resident memory that all refusals together may take
MATRIX = "layers.0.0.memory.matrix"
Change = Callable[[Path], None]


class Payload:
    """Pickled, it runs a command when it is opened."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {self.marker}",)


def weights(folder: Path) -> Path:
    """The weights of a folder, ours or HF PEFT's."""
    ours = folder / "adapter.safetensors"
    return ours if ours.exists() or ours.is_symlink() else folder / "adapter_model.safetensors"


def rewritten(change: Callable[[dict[str, Tensor]], Any]) -> Change:
    """The weights with other tensors and the same metadata."""

    def act(folder: Path) -> None:
        path = weights(folder)
        with safe_open(path, "pt") as file:
            metadata = file.metadata()
        tensors = {key: tensor.clone() for key, tensor in load_file(path).items()}
        change(tensors)
        save_file(tensors, path, metadata=metadata)

    return act


def headed(change: Callable[[dict[str, Any]], Any], size: int | None = None) -> Change:
    """The weights with another header; the file is stretched to `size` by a hole."""

    def act(folder: Path) -> None:
        path = weights(folder)
        raw = path.read_bytes()
        (length,) = struct.unpack("<Q", raw[:8])
        header = json.loads(raw[8 : 8 + length])
        text = json.dumps(change(header) or header).encode()
        path.write_bytes(struct.pack("<Q", len(text)) + text + raw[8 + length :])
        if size is not None:
            os.truncate(path, 8 + len(text) + size)

    return act


def text(name: str, content: str | bytes) -> Change:
    """A file of the folder, replaced."""

    def act(folder: Path) -> None:
        (folder / name).write_bytes(content.encode() if isinstance(content, str) else content)

    return act


def linked(name: str, target: str) -> Change:
    """A file of the folder, replaced by a link."""

    def act(folder: Path) -> None:
        (folder / name).unlink()
        (folder / name).symlink_to(target)

    return act


def piped(name: str) -> Change:
    """A file of the folder, replaced by a pipe that nobody writes to."""

    def act(folder: Path) -> None:
        (folder / name).unlink()
        os.mkfifo(folder / name)

    return act


def stretched(name: str, size: int = GIANT) -> Change:
    """A file of the folder, made huge by a hole."""
    return lambda folder: os.truncate(folder / name, size)


def respelled(change: Callable[[dict[str, Any]], Any]) -> Change:
    """Another spec, with weights that say they belong to it."""

    def act(folder: Path) -> None:
        tree = yaml.safe_load((folder / "variant.yaml").read_text())
        change(tree)
        (folder / "variant.yaml").write_text(yaml.safe_dump(tree))
        try:
            fingerprint = ctxpeft.load_variant(folder / "variant.yaml").fingerprint()
        except CtxpeftError:
            return
        headed(lambda header: header["__metadata__"].update(fingerprint=fingerprint))(folder)

    return act


def reconfigured(**values: Any) -> Change:
    """Other values in PEFT's configuration."""

    def act(folder: Path) -> None:
        path = folder / "adapter_config.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), **values}))

    return act


def pickled(name: str) -> Change:
    """A pickle that runs a command, under a name that is looked for."""

    def act(folder: Path) -> None:
        weights(folder).unlink()
        (folder / name).write_bytes(pickle.dumps({"x": Payload(folder.parent / "EXECUTED")}))

    return act


def truncated(keep: float) -> Change:
    """The first bytes of the weights, as a share."""

    def act(folder: Path) -> None:
        raw = weights(folder).read_bytes()
        weights(folder).write_bytes(raw[: int(len(raw) * keep)])

    return act


def flipped(start: int, part: str) -> Change:
    """One bit of the header or of the values turned."""

    def act(folder: Path) -> None:
        raw = bytearray(weights(folder).read_bytes())
        (length,) = struct.unpack("<Q", raw[:8])
        chance = random.Random(start)
        at = chance.randrange(8 + length) if part == "header" else chance.randrange(8 + length, len(raw))
        raw[at] ^= 1 << chance.randrange(8)
        weights(folder).write_bytes(raw)

    return act


def _tensor(shape: list[Any], begin: int, end: int, dtype: str = "F32") -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


def _grown(name: str, width: int) -> Callable[[dict[str, Any]], Any]:
    """One tensor with another shape, at the end of the file."""

    def change(header: dict[str, Any]) -> None:
        last = max(e["data_offsets"][1] for k, e in header.items() if k != "__metadata__")
        header[name] = _tensor([width, 1024], last, last + 4096 * width)

    return change


def _alone(name: str, size: int) -> Callable[[dict[str, Any]], Any]:
    """One tensor, which fills the file."""
    return lambda header: {"__metadata__": header["__metadata__"], name: _tensor([size // 4], 0, size)}


LAUGHS = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 30)
)
SLOW = {"peft_type": "LORA", "target_modules": "(.*)*(.*)*x"}


def _peft(**arguments: Any) -> Change:
    return respelled(lambda t: (t.pop("modules"), t.update(peft={"peft_type": "LORA", **arguments})))


def _memory(**fields: Any) -> Change:
    slots = {"kind": "slots", "parameterization": {"kind": "mlp", "hidden": 10**12}, "count": 65536} | fields
    return respelled(lambda t: t["modules"][0].update(memory=slots, feature_map=None, normalizer=None))


OURS: dict[str, list[Change]] = {
    "truncated": [truncated(k) for k in (0, 0.001, 0.01, 0.1, 0.5, 0.9, 0.999)],
    "one bit of the header flipped": [flipped(i, "header") for i in range(200)],
    "one bit of the values flipped": [flipped(i, "values") for i in range(100)],
    "a header of any length": [
        *(
            text("adapter.safetensors", struct.pack("<Q", n) + b"{}")
            for n in (1 << 63, 1 << 40, 9 << 20, 0, 3)
        ),
        text("adapter.safetensors", struct.pack("<Q", 1 << 20) + b"[" * (1 << 20)),
    ],
    "sizes that are not there": [
        headed(lambda h: h.update({MATRIX: _tensor([1 << 62, 8, 8], 0, 1024)})),
        headed(lambda h: h.update({MATRIX: _tensor([4, 8, 8], 0, 1 << 62)})),
        headed(lambda h: h.update({MATRIX: _tensor([4, 8, 8], 1024, 0)})),
        headed(lambda h: h.update({MATRIX: _tensor([-4, 8, 8], 0, 1024)})),
        headed(lambda h: h.update({MATRIX: _tensor([4.5, 8, 8], 0, 1024)})),
        headed(lambda h: h.update({MATRIX: _tensor([4, 8, 8], 512, 1536)})),
        headed(lambda h: h.update({MATRIX: _tensor([1 << 32, 1 << 32, 1 << 32], 0, 1024)})),
    ],
    "huge tensors that are there": [
        headed(_grown("extra", GIANT // 4096), 2048 + GIANT),
        headed(_alone(MATRIX, GIANT), GIANT),
        stretched("adapter.safetensors"),
    ],
    "a hundred thousand tensors": [
        headed(
            lambda h: {
                "__metadata__": h["__metadata__"],
                **{f"t{i}": _tensor([0], 0, 0) for i in range(100_000)},
            },
            0,
        )
    ],
    "wrong shapes": [
        rewritten(lambda t, shape=shape: t.update({MATRIX: torch.zeros(shape)}))  # type: ignore[misc]
        for shape in ((), (0,), (256,), (4, 8, 9), (8, 8, 4, 1))
    ],
    "wrong types": [
        rewritten(lambda t, dtype=dtype: t.update({MATRIX: torch.zeros(4, 8, 8).to(dtype)}))  # type: ignore[misc]
        for dtype in (torch.int32, torch.bool, torch.complex64, torch.float8_e4m3fn, torch.uint8)
    ],
    "NaN and infinity": [
        rewritten(lambda t, v=v: t[MATRIX].view(-1)[-1:].fill_(v))  # type: ignore[misc]
        for v in (float("nan"), float("inf"), -float("inf"))
    ],
    "tensors too many, too few, or of other names": [
        rewritten(lambda t: t.update(extra=torch.zeros(3))),
        rewritten(lambda t: t.pop(MATRIX)),
        rewritten(lambda t: t.clear()),
        rewritten(lambda t: t.update({"../../../etc/passwd": t.pop(MATRIX)})),
        rewritten(lambda t: t.update({"/etc/passwd": torch.zeros(1)})),
        rewritten(lambda t: t.update({f"{MATRIX}\x1b[31m\n": t.pop(MATRIX)})),
        rewritten(lambda t: t.update({"x" * (1 << 20): torch.zeros(1)})),
        rewritten(lambda t: t.update({"__class__": torch.zeros(1), "__dict__.x": torch.zeros(1)})),
    ],
    "pickles": [
        pickled("adapter.safetensors"),
        lambda folder: torch.save({"x": torch.zeros(1)}, weights(folder)),
    ],
    "links and pipes": [
        linked("adapter.safetensors", "/dev/zero"),
        linked("adapter.safetensors", "/dev/urandom"),
        linked("adapter.safetensors", "/etc/passwd"),
        linked("adapter.safetensors", "adapter.safetensors"),
        linked("variant.yaml", "/dev/zero"),
        linked("variant.yaml", "/etc/passwd"),
        linked("variant.yaml", "../nowhere"),
        piped("variant.yaml"),
        piped("adapter.safetensors"),
    ],
    "YAML bombs and worse": [
        text("variant.yaml", LAUGHS),
        text("variant.yaml", "a: &a [*a]"),
        text("variant.yaml", "[" * 500_000),
        text("variant.yaml", "- x\n" * 200_000),
        text("variant.yaml", "name: !!python/object/apply:os.system ['touch EXECUTED']"),
        text("variant.yaml", "!!python/name:os.system"),
        text("variant.yaml", b"\xff\xfe\x00"),
        text("variant.yaml", ""),
        stretched("variant.yaml"),
    ],
    "specs of huge memories": [
        _memory(),
        _memory(parameterization={"kind": "direct"}),
        _memory(parameterization={"kind": "mlp", "hidden": 10**30}),
        respelled(lambda t: t["modules"][0].update(feature_map={"kind": "projection", "width": 10**11})),
        respelled(lambda t: t.update(modules=t["modules"] * 3000)),
        _peft(r=10**9, target_modules=["q_proj"]),
        _peft(r=10**30, target_modules=["q_proj"]),
    ],
    "specs that name code or files": [
        _peft(target_modules=["q_proj"], megatron_config={"x": 1}, megatron_core="os"),
        _peft(target_modules=["q_proj"], auto_mapping={"base_model_class": "x", "parent_library": "os"}),
        _peft(
            target_modules=["q_proj"], init_lora_weights="corda", corda_config={"cache_file": "/etc/passwd"}
        ),
        _peft(target_modules=["q_proj"], init_lora_weights="pissa"),
        _peft(target_modules=["q_proj"], modules_to_save=["lm_head"]),
        _peft(target_modules="(.*)*(.*)*x"),
        _peft(target_modules=["(a+)+$" * 40]),
        respelled(lambda t: t["modules"][0].update(gate={"kind": "os:system"})),
        respelled(lambda t: t["modules"][0].update(feature_map={"kind": "../../etc/passwd"})),
    ],
}

THEIRS: dict[str, list[Change]] = {
    "HF PEFT: truncated": [truncated(k) for k in (0, 0.01, 0.5, 0.999)],
    "HF PEFT: one bit flipped": [flipped(i, part) for i in range(50) for part in ("header", "values")],
    "HF PEFT: pickles": [
        pickled("adapter_model.bin"),
        pickled("adapter_model.safetensors"),
    ],
    "HF PEFT: configurations": [
        text("adapter_config.json", "["),
        text("adapter_config.json", "[" * 500_000),
        text("adapter_config.json", "{}"),
        text("adapter_config.json", "3"),
        text("adapter_config.json", b"\xff"),
        stretched("adapter_config.json"),
        *(reconfigured(num_virtual_tokens=n) for n in (0, -1, 10**9, 10**400, 1.5, "4", True, None, [4])),
        reconfigured(num_layers=10**9),
        reconfigured(peft_type="PREFIX_TUNING\x1b[31m"),
        reconfigured(peft_type={"x": 1}),
        reconfigured(task_type="SEQ_CLS"),
        reconfigured(modules_to_save=["lm_head"]),
        reconfigured(num_attention_heads="x" * 100_000),
    ],
    "HF PEFT: tensors": [
        rewritten(lambda t: t.update(prompt_embeddings=torch.zeros(4, 7))),
        rewritten(lambda t: t.update(prompt_embeddings=t["prompt_embeddings"].int())),
        rewritten(lambda t: t.update(extra=torch.zeros(1))),
        rewritten(lambda t: t.clear()),
        rewritten(lambda t: t["prompt_embeddings"].fill_(float("nan"))),
        headed(_alone("prompt_embeddings", GIANT), GIANT),
        headed(_grown("extra", GIANT // 4096), 1024 + GIANT),
    ],
}  # fmt: skip
HARMLESS = ("one bit of the header flipped", "HF PEFT: one bit flipped")


def saved(folder: Path) -> tuple[Path, Path]:
    """A good folder of ours and a good one of HF PEFT's, for the tiny model."""
    handle = ctxpeft.attach(tiny_model(), "prefix-tuning-plus", seed=0)
    perturb(handle)
    handle.save(folder / "ours")
    prefix = {"placement": "inside", "memory": {"kind": "slots", "count": 4, "position": "auto"}}
    handle = ctxpeft.attach(tiny_model(), {"name": "prefix", "modules": [prefix]}, seed=0)
    perturb(handle)
    handle.export(folder / "theirs")
    return folder / "ours", folder / "theirs"


def cases(folder: Path) -> Iterator[tuple[str, Path]]:
    """Every hostile folder, made when it is asked for and removed after it."""
    ours, theirs = saved(folder)
    for good, families in ((ours, OURS), (theirs, THEIRS)):
        for family, changes in families.items():
            for change in changes:
                bad = folder / "bad"
                shutil.copytree(good, bad)
                change(bad)
                yield family, bad
                shutil.rmtree(bad)


def child(folder: Path) -> None:
    """Load every case in this process under a limit, and print what happened as JSON."""
    model, ids = tiny_model(), torch.arange(3, 9)[None]
    before = model(ids).logits
    one_line("\x1b")  # the codec is imported once
    for good in saved(folder / "warm"):
        for _ in range(2):
            ctxpeft.load(model, good).detach()
    for bad in (_peft(target_modules=["q_proj"], r=2), text("variant.yaml", "name: x")):
        shutil.copytree(folder / "warm" / "ours", folder / "warm" / "bad")
        bad(folder / "warm" / "bad")
        _attempt(model, folder / "warm" / "bad")
        shutil.rmtree(folder / "warm" / "bad")
    limit = _status("VmSize") + ROOM
    rows: dict[str, dict[str, Any]] = {}
    start = _status("VmRSS")
    for family, bad in cases(folder):
        resource.setrlimit(resource.RLIMIT_AS, (limit, resource.RLIM_INFINITY))
        began = time.perf_counter()
        with watched() as acts:
            told = _attempt(model, bad)
        seconds = time.perf_counter() - began
        resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        row = rows.setdefault(
            family,
            {"folders": 0, "refused": 0, "loaded": 0, "seconds": 0.0, "acts": [], "escaped": [], "told": []},
        )
        row["folders"] += 1
        row["seconds"] = max(row["seconds"], seconds)
        row["acts"] += acts
        if told is None:
            row["loaded"] += 1
        elif isinstance(told, str):
            row["refused"] += 1
            row["told"].append(told)
        else:
            row["escaped"].append(f"{type(told).__name__}: {told}"[:300])
        peak = _status("VmRSS")
        row["growth"] = max(row.get("growth", 0), peak - start)
    result = {
        "rows": rows,
        "peak_growth": _status("VmHWM") - start,
        "unchanged": bool(torch.equal(model(ids).logits, before)),
        "executed": (folder / "EXECUTED").exists() or Path("EXECUTED").exists(),
    }
    print(json.dumps(result))


def _attempt(model: nn.Module, folder: Path) -> str | BaseException | None:
    """The sentence of a refusal, what escaped, or None where the folder was loaded (and is taken out again)."""
    try:
        ctxpeft.load(model, folder).detach()
    except CtxpeftError as error:
        sentence = str(error)
        return sentence if sentence and sentence == one_line(sentence) else AssertionError(sentence)
    except BaseException as error:
        return error
    return None


def _status(key: str) -> int:
    """A number of bytes of /proc/self/status."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{key}:"):
            return int(line.split()[1]) * 1024
    raise KeyError(key)


def run(folder: Path) -> dict[str, Any]:
    """All cases, in a process of their own."""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-m", "tests.reliability.folders", str(folder)],
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    if done.returncode != 0:
        raise RuntimeError(done.stderr[-2000:])
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


if __name__ == "__main__":
    child(Path(sys.argv[1]))
