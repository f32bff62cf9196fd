"""What a variant costs on a model, known before anything is trained or loaded.

cost = measure(model, ctxpeft.load_variant("prefix-tuning"))   # the model may be on the meta device
print("\\n".join(cost.lines()))
"""

from ctxpeft.analysis.cost._cost import Cost, Flops, Part
from ctxpeft.analysis.cost._measure import measure

__all__ = ["Cost", "Flops", "Part", "measure"]
