"""Instruments: what a memory does in a model, measured on texts."""

from __future__ import annotations

from ctxpeft.analysis.diagnose._attention import attention_shift
from ctxpeft.analysis.diagnose._diagnosis import Diagnosis
from ctxpeft.analysis.diagnose._dilution import dilution
from ctxpeft.analysis.diagnose._gates import gates
from ctxpeft.analysis.diagnose._reads import reads
from ctxpeft.analysis.diagnose._slots import slots
from ctxpeft.analysis.diagnose._spectrum import spectrum

INSTRUMENTS = ("dilution", "spectrum", "attention", "gates", "reads", "slots")
__all__ = [
    "INSTRUMENTS",
    "Diagnosis",
    "attention_shift",
    "dilution",
    "gates",
    "reads",
    "slots",
    "spectrum",
]
