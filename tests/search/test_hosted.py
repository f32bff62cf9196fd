"""A stack that the model lacks is never drawn, and a space that has no other is refused at the start."""

from __future__ import annotations

import pytest
from torch import nn

from ctxpeft.errors import SpecError
from ctxpeft.search.counting import space_on
from ctxpeft.search.dryrun import preview
from ctxpeft.search.space.chooser import RandomChooser
from ctxpeft.search.space.hosted import hosted
from ctxpeft.search.space.walk import walk
from tests.search.conftest import space_of

SPACE = "modules: [{{templates: {{a: {{placement: outside, memory: matrix, feature_map: elu, scope: {}}}}}}}]"


@pytest.mark.parametrize("scope", ["any", "{stack: any}", "[{stack: cross}, {stack: [decoder, encoder]}]"])
def test_a_decoder_is_asked_for_no_other_stack(scope: str, skeleton: nn.Module) -> None:
    found = preview(space_of(SPACE.format(scope)), skeleton)
    assert not found.refused
    assert {m.scope.stack for d in found.designs for m in d.variant.modules} <= {"all", "decoder"}
    assert "cross" not in "\n".join(found.tree)


def test_a_model_of_two_stacks_keeps_its_choices() -> None:
    positions = space_of(SPACE.format("{stack: any}")).positions
    assert hosted(positions, ["encoder", "decoder", "cross"]) == positions
    left = hosted(positions, ["encoder", "decoder"])
    drawn = {walk(left, RandomChooser(seed), solve=False).modules[0]["scope"]["stack"] for seed in range(50)}
    assert drawn == {"all", "encoder", "decoder"}


def test_a_template_without_a_stack_of_the_model_is_refused(skeleton: nn.Module) -> None:
    with pytest.raises(SpecError, match=r"template 'a': scope.stack .* it has decoder$"):
        space_on(space_of(SPACE.format("{stack: [encoder, cross]}")), skeleton)
