"""Every merge and memory equals its paper's equation, values and every gradient, over drawn shapes and masks."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ctxpeft.blocks import naive
from ctxpeft.testing.compare import assert_same_with_gradients
from ctxpeft.testing.heads import Heads

SLOTS = {"kind": "slots", "count": 3, "init": {"kind": "normal", "std": 1.0}}
ELU1 = {"kind": "elu_plus_one"}


@st.composite
def problems(draw):
    return Heads.random(
        seed=draw(st.integers(0, 10_000)),
        batch=draw(st.integers(1, 2)),
        kv_heads=draw(st.integers(1, 2)),
        repeat=draw(st.integers(1, 3)),
        tokens=draw(st.integers(1, 5)),
        width=draw(st.integers(1, 5)),
        value_width=draw(st.integers(1, 4)),
        mask=draw(st.sampled_from(["causal", "padded", "window", "full"])),
    )


def slots_of(module):
    return dict(module.named_parameters())["memory.slots.key"], dict(module.named_parameters())[
        "memory.slots.value"
    ]


def check(heads, module, expected, **extra):
    inputs = {**heads.inputs(), **dict(module.named_parameters()), **extra}
    assert_same_with_gradients(heads.composed(module), expected, inputs)


few = settings(max_examples=25)


@few
@given(problems(), st.sampled_from(["kv_head", "query_head", "layer"]))
def test_inside_is_one_softmax_over_slots_and_content(heads, per):
    """Prefix-Tuning, arXiv:2101.00190: inside = slots concatenated to the content."""
    module = heads.module({"placement": "inside", "memory": {**SLOTS, "per": per}})
    key, value = slots_of(module)
    groups = heads.shape().group_of_heads(per)
    expected = heads.per_head(
        lambda q, k, v, visible, a, h: naive.prefix_attention(
            q, k, v, visible, a, key[groups[h]], value[groups[h]]
        )
    )
    check(heads, module, expected)


@few
@given(problems())
def test_tradeoff_form_is_the_same_function(heads):
    """arXiv:2506.13674, eq. 3: (1 - alpha) o + sum alpha_j v'_j."""
    module = heads.module({"placement": "inside", "memory": SLOTS})
    key, value = slots_of(module)
    expected = heads.per_head(
        lambda q, k, v, visible, a, h: naive.tradeoff_attention(
            q, k, v, visible, a, key[h // heads.repeat], value[h // heads.repeat]
        )
    )
    check(heads, module, expected)


@few
@given(problems(), st.integers(2, 3))
def test_several_inside_modules_are_one_concatenation(heads, count):
    """All inside modules of all adapters join one softmax."""
    modules = [heads.module({"placement": "inside", "memory": SLOTS}, seed=i) for i in range(count)]
    key = torch.cat([slots_of(m)[0] for m in modules], 1)
    value = torch.cat([slots_of(m)[1] for m in modules], 1)
    expected = heads.per_head(
        lambda q, k, v, visible, a, h: naive.prefix_attention(
            q, k, v, visible, a, key[h // heads.repeat], value[h // heads.repeat]
        )
    )
    parameters = {f"{i}.{k}": p for i, m in enumerate(modules) for k, p in m.named_parameters()}
    assert_same_with_gradients(heads.composed(*modules), expected, {**heads.inputs(), **parameters})
    backwards = heads.composed(*reversed(modules))
    assert torch.allclose(backwards, expected, rtol=1e-10, atol=1e-12)


@few
@given(problems(), st.floats(0.05, 0.95))
def test_moved_out_with_constant_lambda(heads, constant):
    """arXiv:2506.13674, eq. 4."""
    module = heads.module(
        {
            "placement": "outside",
            "merge": "mix",
            "memory": SLOTS,
            "gate": {"kind": "constant", "value": constant},
        }
    )
    key, value = slots_of(module)

    def equation(q, k, v, visible, a, h):
        o, _ = naive.content_attention(q, k, v, visible, a)
        return naive.moved_out(o, q, a, key[h // heads.repeat], value[h // heads.repeat], constant)

    check(heads, module, heads.per_head(equation))


@few
@given(problems(), st.floats(0.05, 0.95))
def test_kernelised_with_normaliser(heads, constant):
    """arXiv:2506.13674, eq. 5."""
    module = heads.module(
        {
            "placement": "outside",
            "merge": "mix",
            "feature_map": ELU1,
            "memory": {**SLOTS, "score": "kernel"},
            "normalizer": "sum",
            "gate": {"kind": "constant", "value": constant},
        }
    )
    key, value = slots_of(module)

    def phi(x):
        return torch.where(x > 0, x + 1, torch.exp(x.clamp(max=0)))

    def equation(q, k, v, visible, a, h):
        o, _ = naive.content_attention(q, k, v, visible, a)
        return naive.kernelised(o, phi(q), phi(key[h // heads.repeat]), value[h // heads.repeat], constant)

    check(heads, module, heads.per_head(equation))


@few
@given(
    problems(),
    st.sampled_from(["query_head", "kv_head", "layer"]),
    st.sampled_from(["elu", "gelu", "identity"]),
)
def test_prefix_tuning_plus(heads, per, kind):
    """arXiv:2506.13674, eq. 7: o + phi(q)^T M."""
    module = heads.module(
        {"placement": "outside", "feature_map": {"kind": kind}, "memory": {"kind": "matrix", "per": per}}
    )
    matrix = module.memory.matrix
    groups = heads.shape().group_of_heads(per)
    phi = module.spec.feature_map.naive

    def equation(q, k, v, visible, a, h):
        o, _ = naive.content_attention(q, k, v, visible, a)
        return naive.prefix_tuning_plus(o, phi(q, {}), matrix[groups[h]])

    check(heads, module, heads.per_head(equation))


@few
@given(problems())
def test_ntk_attention(heads):
    """arXiv:2406.14036: (Z o + phi(q)^T M) / (Z + phi(q)^T z), the positive kernel inside."""
    module = heads.module(
        {
            "placement": "inside",
            "query": {"scale": "inverse_fourth_root"},
            "feature_map": ELU1,
            "memory": {"kind": "matrix"},
        }
    )
    matrix, zeta = module.memory.matrix, module.memory.zeta

    def equation(q, k, v, visible, a, h):
        o, mass = naive.content_attention(q, k, v, visible, a)
        x = q / q.shape[-1] ** 0.25
        phi = torch.where(x > 0, x + 1, torch.exp(x.clamp(max=0)))
        return naive.ntk_attention(o, mass, phi, matrix[h], torch.log1p(torch.exp(zeta[h])))

    check(heads, module, heads.per_head(equation))


@few
@given(problems())
def test_llama_adapter(heads):
    """arXiv:2303.16199: o + tanh(g_h) softmax(q K_s) V_s."""
    module = heads.module(
        {"placement": "outside", "memory": SLOTS, "gate": {"kind": "scalar", "activation": "tanh"}}
    )
    key, value = slots_of(module)
    gate = module.gate.logit

    def equation(q, k, v, visible, a, h):
        o, _ = naive.content_attention(q, k, v, visible, a)
        return naive.llama_adapter(o, q, a, key[h // heads.repeat], value[h // heads.repeat], gate[h, 0, 0])

    check(heads, module, heads.per_head(equation))


@few
@given(problems())
def test_length_compensated_competition(heads):
    """rho = sigmoid(l + log n + b - L)."""
    module = heads.module(
        {"placement": "inside", "merge": "compete_length", "length_bias": -1.0, "memory": SLOTS}
    )
    key, value = slots_of(module)

    def equation(q, k, v, visible, a, h):
        o, mass = naive.content_attention(q, k, v, visible, a)
        count = visible.sum(-1).double()
        g = h // heads.repeat
        return naive.length_compensated(o, mass, count, q, a, key[g], value[g], module.length_bias[h, 0])

    check(heads, module, heads.per_head(equation))


@few
@given(problems())
def test_slots_with_a_kernel_collapse_into_a_matrix(heads):
    """sum_j phi(q)^T phi(k_j) v_j = phi(q)^T M with M = sum_j phi(k_j) v_j^T."""
    slots = heads.module(
        {"placement": "outside", "feature_map": {"kind": "elu"}, "memory": {**SLOTS, "score": "kernel"}}
    )
    matrix = heads.module(
        {
            "placement": "outside",
            "feature_map": {"kind": "elu"},
            "memory": {"kind": "matrix", "per": "kv_head"},
        }
    )
    key, value = slots_of(slots)
    matrix.memory.matrix.data = torch.nn.functional.elu(key).transpose(1, 2) @ value
    assert torch.allclose(heads.composed(slots), heads.composed(matrix), rtol=1e-9, atol=1e-10)


@few
@given(problems())
def test_relu_slots_are_a_parallel_adapter(heads):
    """relu(q K_s^T) V_s is a matrix read through relu of a projection (arXiv:2110.04366)."""
    module = heads.module({"placement": "outside", "memory": {**SLOTS, "score": "relu"}})
    key, value = slots_of(module)

    def equation(q, k, v, visible, a, h):
        o, _ = naive.content_attention(q, k, v, visible, a)
        g = h // heads.repeat
        return o + torch.relu(a * q @ key[g].T) @ value[g]

    check(heads, module, heads.per_head(equation))


@few
@given(problems())
def test_the_constant_map_is_a_bias(heads):
    """phi = 1 makes Prefix-Tuning+ a constant vector a head, which is memory 'vector'."""
    one = heads.module({"placement": "outside", "feature_map": {"kind": "one"}, "memory": {"kind": "matrix"}})
    bias = heads.module({"placement": "outside", "memory": {"kind": "vector"}})
    bias.memory.vector.data = one.memory.matrix.data[:, 0]
    assert torch.equal(heads.composed(one), heads.composed(bias))


@few
@given(problems())
def test_a_vector_inside_is_a_slot_with_constant_score(heads):
    """A vector competes as one slot whose score is its learned log-mass."""
    module = heads.module({"placement": "inside", "memory": {"kind": "vector", "log_mass": 0.5}})
    vector, mass = module.memory.vector, module.memory.log_mass

    def equation(q, k, v, visible, a, h):
        o, content = naive.content_attention(q, k, v, visible, a)
        rho = torch.sigmoid(mass[h] - content)[:, None]
        return (1 - rho) * o + rho * vector[h]

    check(heads, module, heads.per_head(equation))


@few
@given(problems(), st.sampled_from(["weight", "mass"]))
def test_gates_inside(heads, on):
    """On the weight: rho <- g rho. On the mass: l <- l + log g."""
    activation = "tanh" if on == "weight" else "sigmoid"
    module = heads.module(
        {
            "placement": "inside",
            "memory": SLOTS,
            "gate": {"kind": "scalar", "activation": activation, "on": on},
        }
    )
    key, value = slots_of(module)
    gate = module.gate.logit

    def equation(q, k, v, visible, a, h):
        o, content = naive.content_attention(q, k, v, visible, a)
        score = a * q @ key[h // heads.repeat].T
        read = torch.softmax(score, -1) @ value[h // heads.repeat]
        mass = torch.logsumexp(score, -1)
        if on == "mass":
            rho = torch.sigmoid(mass + torch.log(torch.sigmoid(gate[h, 0, 0])) - content)[:, None]
        else:
            rho = torch.tanh(gate[h, 0, 0]) * torch.sigmoid(mass - content)[:, None]
        return (1 - rho) * o + rho * read

    check(heads, module, heads.per_head(equation))


@few
@given(
    problems(),
    st.sampled_from(["query", "hidden", "output", "log_mass"]),
    st.sampled_from(["add", "mix", "scale"]),
)
def test_token_gates_outside(heads, source, merge):
    """g = sigmoid(w^T u + b), in o + g r, (1-g) o + g r and g o."""
    memory = {"kind": "none"} if merge == "scale" else {"kind": "matrix"}
    spec = {
        "placement": "outside",
        "merge": merge,
        "memory": memory,
        "gate": {"kind": "token", "source": source},
    }
    if merge != "scale":
        spec["feature_map"] = {"kind": "elu"}
    module = heads.module(spec)
    weight, bias = module.gate.weight, module.gate.bias
    row = iter(range(10**6))

    def equation(q, k, v, visible, a, h):
        b = next(row) // heads.query.shape[1]
        o, mass = naive.content_attention(q, k, v, visible, a)
        u = {"query": q, "hidden": heads.hidden[b, 0], "output": o, "log_mass": mass[:, None]}[source]
        g = torch.sigmoid(u @ weight[h] + bias[h])[:, None]
        if merge == "scale":
            return g * o
        r = torch.nn.functional.elu(q) @ module.memory.matrix[h]
        return o + g * r if merge == "add" else (1 - g) * o + g * r

    check(heads, module, heads.per_head(equation), hidden=heads.hidden)


@few
@given(
    problems(),
    st.sampled_from(["none", "rms", "l2"]),
    st.booleans(),
    st.sampled_from(["rotated", "unrotated"]),
)
def test_query_block(heads, norm, learned, source):
    """q' = scale(norm(source)) / temperature."""
    from ctxpeft.blocks.query import naive_query

    query = {
        "source": source,
        "norm": norm,
        "scale": "inverse_sqrt",
        "temperature": 2.0,
        "learned_temperature": learned,
    }
    module = heads.module(
        {
            "placement": "outside",
            "query": query,
            "feature_map": {"kind": "identity"},
            "memory": {"kind": "matrix"},
        }
    )
    row = iter(range(10**6))

    def equation(q, k, v, visible, a, h):
        b = next(row) // heads.query.shape[1]
        o, _ = naive.content_attention(q, k, v, visible, a)
        x = q if source == "rotated" else heads.unrotated[b, h]
        temperature = torch.exp(module.query.log_temperature[h, 0, 0]) if learned else 2.0
        return o + naive_query(module.spec.query, x, temperature) @ module.memory.matrix[h]

    check(heads, module, heads.per_head(equation), unrotated=heads.unrotated)


@few
@given(problems(), st.data())
def test_heads_out_of_scope_are_untouched(heads, data):
    """A head scope gives parameters to its heads and leaves the others bit-identical."""
    count = heads.query.shape[1]
    chosen = tuple(sorted(data.draw(st.sets(st.integers(0, count - 1), min_size=1))))
    spec = data.draw(
        st.sampled_from(
            [
                {"placement": "outside", "feature_map": {"kind": "elu"}, "memory": {"kind": "matrix"}},
                {"placement": "inside", "memory": {**SLOTS, "per": "query_head"}},
                {"placement": "inside", "memory": {**SLOTS, "per": "query_head"}, "gate": {"kind": "scalar"}},
                {
                    "placement": "outside",
                    "merge": "scale",
                    "memory": {"kind": "none"},
                    "gate": {"kind": "scalar"},
                },
            ]
        )
    )
    module = heads.module({**spec, "scope": {"heads": list(chosen)}}, heads=chosen)
    everywhere = heads.module(spec)
    for name, parameter in module.named_parameters():
        parameter.data = dict(everywhere.named_parameters())[name].data[list(chosen)]
    part, whole, (o, _) = heads.composed(module), heads.composed(everywhere), heads.content()
    others = [h for h in range(count) if h not in chosen]
    assert torch.allclose(part[:, list(chosen)], whole[:, list(chosen)], rtol=1e-12, atol=1e-12)
    assert torch.equal(part[:, others], o[:, others])


@few
@given(problems())
def test_low_rank_and_diagonal_matrices(heads):
    """M = A B, and M = diag(m)."""
    low = heads.module(
        {
            "placement": "outside",
            "feature_map": {"kind": "elu"},
            "memory": {"kind": "matrix", "form": "low_rank", "rank": 2},
        }
    )
    full = heads.module(
        {"placement": "outside", "feature_map": {"kind": "elu"}, "memory": {"kind": "matrix"}}
    )
    full.memory.matrix.data = low.memory.down @ low.memory.matrix
    assert torch.allclose(heads.composed(low), heads.composed(full), rtol=1e-9, atol=1e-10)
    if heads.query.shape[-1] == heads.value.shape[-1]:
        diagonal = heads.module(
            {
                "placement": "outside",
                "feature_map": {"kind": "elu"},
                "memory": {"kind": "matrix", "form": "diagonal"},
            }
        )
        full.memory.matrix.data = torch.diag_embed(diagonal.memory.matrix)
        assert torch.allclose(heads.composed(diagonal), heads.composed(full), rtol=1e-9, atol=1e-10)


def test_masked_rows_take_the_prefix_alone():
    """A query that sees no content has L = -inf and reads the slots only."""
    heads = Heads.random(0, 1, 1, 1, 2, 3, 3, "causal")
    module = heads.module({"placement": "inside", "memory": SLOTS})
    capture = heads.capture()
    capture.output = torch.zeros_like(capture.output)
    capture.log_mass = lambda: torch.full((1, 1, 2), -torch.inf, dtype=torch.float64)
    from ctxpeft.blocks.compose import compose

    out, kept = compose(capture, [(module, None)])
    key, value = slots_of(module)
    expected = torch.softmax(heads.scaling * heads.query[0, 0] @ key[0].T, -1) @ value[0]
    assert torch.allclose(out[0, 0], expected)
    assert torch.allclose(kept, torch.zeros_like(kept))


@pytest.mark.parametrize("size", [1e3, -1e3])
def test_huge_scores_do_not_overflow(size):
    """Scores of +-1000 stay finite, with finite gradients."""
    heads = Heads.random(0, 1, 1, 1, 3, 4, 4, "causal")
    module = heads.module({"placement": "inside", "memory": SLOTS})
    module.memory.slots.key.data.fill_(size)
    out = heads.composed(module)
    out.sum().backward()
    assert torch.isfinite(out).all()
    assert all(torch.isfinite(p.grad).all() for p in module.parameters())
