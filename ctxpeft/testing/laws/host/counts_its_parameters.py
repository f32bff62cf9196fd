"""The budget of a variant is known before it is made."""

from __future__ import annotations

from ctxpeft.hosts.count import count_parameters
from ctxpeft.testing.laws.ground import Host, require
from ctxpeft.testing.laws.law import host_law
from ctxpeft.testing.laws.size import Size


@host_law(
    equation="count(variant, model on the meta device) = Σ |θ|",
    source="the design",
    least=Size(2, 9),
    peft=True,
)
def counts_its_parameters(host: Host, size: Size) -> None:
    """The number predicted without allocating a parameter is the number that attach makes."""
    predicted = count_parameters(host.model, host.variant)
    deployed = predicted if host.variant.peft else count_parameters(host.model, host.variant, "deployed")
    with host.attached() as handle:
        made = sum(p.numel() for p in {id(p): p for p in handle.parameters()}.values())
        told = handle.num_parameters()
        require(predicted == made == told, f"predicted {predicted:,}, told {told:,}, made {made:,}")
        kept, stored = handle.num_parameters("deployed"), sum(t.numel() for t in handle.state_dict().values())
        require(kept == deployed, f"deployed {kept:,}, predicted {deployed:,}")
        require(kept <= stored, f"deployed {kept:,}, more than the {stored:,} that are saved")
