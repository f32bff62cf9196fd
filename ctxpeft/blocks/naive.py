"""The equations of whole methods, one query at a time, to be read and to be compared with.

Shapes never carry a batch or several heads: that is the point.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class Head(NamedTuple):
    """One query head of one row: its queries q (T, d), its content k (S, d) and v (S, dv), `visible` (T, S) booleans,
    the scaling a. row: of the batch. number: of the query head. kv: of its kv head."""

    q: Tensor
    k: Tensor
    v: Tensor
    visible: Tensor
    a: float
    row: int = 0
    number: int = 0
    kv: int = 0


def content_attention(head: Head) -> tuple[Tensor, Tensor]:
    """o_i = sum_j softmax_j(a q_i k_j) v_j and L_i = log sum_j e^(a q_i k_j), over visible j. (T, dv), (T,)."""
    outputs, masses = [], []
    for i in range(len(head.q)):
        score = head.a * (head.k[head.visible[i]] @ head.q[i])
        masses.append(torch.logsumexp(score, 0))
        outputs.append(torch.softmax(score, 0) @ head.v[head.visible[i]])
    return torch.stack(outputs), torch.stack(masses)


def prefix_attention(head: Head, slot_k: Tensor, slot_v: Tensor) -> Tensor:
    """Prefix-Tuning, arXiv:2101.00190: slots before the content, one softmax. slot_k (P, d), slot_v (P, dv)."""
    always = torch.ones(len(head.q), len(slot_k), dtype=torch.bool)
    joined = head._replace(
        k=torch.cat([slot_k, head.k]),
        v=torch.cat([slot_v, head.v]),
        visible=torch.cat([always, head.visible], 1),
    )
    return content_attention(joined)[0]


def tradeoff_attention(head: Head, slot_k: Tensor, slot_v: Tensor) -> Tensor:
    """The same function as (1 - alpha_i) o_i + sum_j alpha_ij v'_j, arXiv:2506.13674, eq. 3."""
    o, _ = content_attention(head)
    rows = []
    for i in range(len(head.q)):
        slot = torch.exp(head.a * slot_k @ head.q[i])
        content = torch.exp(head.a * head.k[head.visible[i]] @ head.q[i])
        alpha = slot / (slot.sum() + content.sum())
        rows.append((1 - alpha.sum()) * o[i] + alpha @ slot_v)
    return torch.stack(rows)


def moved_out(head: Head, slot_k: Tensor, slot_v: Tensor, constant: float) -> Tensor:
    """(1 - lambda) o_i + lambda softmax(a q_i K_s) V_s with a constant lambda, arXiv:2506.13674, eq. 4."""
    o, _ = content_attention(head)
    return torch.stack(
        [
            (1 - constant) * o[i] + constant * torch.softmax(head.a * slot_k @ head.q[i], 0) @ slot_v
            for i in range(len(o))
        ]
    )


def kernelised(o: Tensor, phi_q: Tensor, phi_k: Tensor, slot_v: Tensor, constant: float) -> Tensor:
    """(1 - lambda) o_i + lambda phi(q_i)^T b1 / phi(q_i)^T b2, arXiv:2506.13674, eq. 5.

    b1 = sum_j phi(k_j) v_j^T and b2 = sum_j phi(k_j).
    """
    b1 = sum(torch.outer(phi_k[j], slot_v[j]) for j in range(len(phi_k)))
    b2 = phi_k.sum(0)
    assert isinstance(b1, Tensor)
    return torch.stack(
        [(1 - constant) * o[i] + constant * (phi_q[i] @ b1) / (phi_q[i] @ b2) for i in range(len(phi_q))]
    )


def prefix_tuning_plus(o: Tensor, phi_q: Tensor, matrix: Tensor) -> Tensor:
    """o_i + phi(q_i)^T M, arXiv:2506.13674, eq. 7. phi_q (T, w), matrix (w, dv)."""
    return torch.stack([o[i] + phi_q[i] @ matrix for i in range(len(o))])


def ntk_attention(o: Tensor, log_mass: Tensor, phi_q: Tensor, matrix: Tensor, z: Tensor) -> Tensor:
    """(Z_i o_i + phi(q_i)^T M) / (Z_i + phi(q_i)^T z), Z_i = e^(L_i), z > 0; arXiv:2406.14036."""
    rows = []
    for i in range(len(o)):
        content = torch.exp(log_mass[i])
        rows.append((content * o[i] + phi_q[i] @ matrix) / (content + phi_q[i] @ z))
    return torch.stack(rows)


def kernel_slots(o: Tensor, log_mass: Tensor, phi_q: Tensor, phi_k: Tensor, slot_v: Tensor) -> Tensor:
    """(Z_i o_i + sum_j w_ij v_j) / (Z_i + sum_j w_ij), Z_i = e^(L_i), w_ij = phi(q_i)^T phi(k_j) >= 0."""
    rows = []
    for i in range(len(o)):
        weights, content = phi_k @ phi_q[i], torch.exp(log_mass[i])
        rows.append((content * o[i] + weights @ slot_v) / (content + weights.sum()))
    return torch.stack(rows)


def llama_adapter(head: Head, slot_k: Tensor, slot_v: Tensor, gate: Tensor) -> Tensor:
    """o_i + tanh(g) softmax(a q_i K_s) V_s, arXiv:2303.16199."""
    o, _ = content_attention(head)
    return torch.stack(
        [
            o[i] + torch.tanh(gate) * (torch.softmax(head.a * slot_k @ head.q[i], 0) @ slot_v)
            for i in range(len(o))
        ]
    )


def length_compensated(head: Head, slot_k: Tensor, slot_v: Tensor, bias: Tensor) -> Tensor:
    """(1 - rho_i) o_i + rho_i r_i, rho_i = sigmoid(l_i + log n_i + b - L_i), n_i the content keys query i sees."""
    o, log_mass = content_attention(head)
    count = head.visible.sum(-1).to(o.dtype)
    rows = []
    for i in range(len(o)):
        score = head.a * slot_k @ head.q[i]
        rho = torch.sigmoid(torch.logsumexp(score, 0) + torch.log(count[i]) + bias - log_mass[i])
        rows.append((1 - rho) * o[i] + rho * (torch.softmax(score, 0) @ slot_v))
    return torch.stack(rows)


def norga_attention(head: Head, slot_k: Tensor, slot_v: Tensor, alpha: Tensor, tau: Tensor) -> Tensor:
    """One softmax over slots of score s + alpha tanh(tau s), s = a q_i k_j, and the content; arXiv:2405.14124."""
    rows = []
    for i in range(len(head.q)):
        s = head.a * slot_k @ head.q[i]
        rows.append(_one_softmax(head, i, s + alpha * torch.tanh(tau * s), slot_v))
    return torch.stack(rows)


def adaptive_prefix(head: Head, slot_k: Tensor, slot_v: Tensor, gates: Tensor) -> Tensor:
    """Query i attends to slots (g_ij k_j, g_ij v_j) and the content in one softmax; gates (T, P). arXiv:2305.15212."""
    rows = []
    for i in range(len(head.q)):
        key, value = gates[i][:, None] * slot_k, gates[i][:, None] * slot_v
        rows.append(_one_softmax(head, i, head.a * key @ head.q[i], value))
    return torch.stack(rows)


def _one_softmax(head: Head, i: int, score: Tensor, value: Tensor) -> Tensor:
    """What query i reads of slots with this score (P,) and value (P, dv) and of the content it sees, (dv,)."""
    seen = head.visible[i]
    weights = torch.softmax(torch.cat([score, head.a * head.k[seen] @ head.q[i]]), 0)
    return weights @ torch.cat([value, head.v[seen]])
