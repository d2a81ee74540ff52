"""BitFit: supervised fine-tuning of the biases and the task head."""

from __future__ import annotations

from torch import nn

from bench import FoundationModel, Unsupported, register
from bench.models.surgery.linear import own_head

from ._supervised import SupervisedMethod


@register("method", "bias-only")
class BiasOnly(SupervisedMethod):
    """BitFit (Ben Zaken et al., ACL 2022): all bias terms and the task head, on target labels.

    Biases are the parameters whose name ends in ``bias``, those of normalization layers
    included, as in the paper: about a thousandth of a transformer's weights. The head of a language
    model is none that a task adds, and is often tied to the embedding: biases alone are trained.
    """

    paper = "Ben Zaken, Ravfogel, Goldberg: BitFit, ACL 2022"
    equation = "min over biases and head: CE(target)"

    def trained(self, model: FoundationModel) -> list[nn.Parameter]:
        added = model.task != "generation" and model.head_parameters()
        head = own_head(model, "bias-only") if added else []
        known = {id(p) for p in head}
        biases = [
            p
            for name, p in model.module.named_parameters()
            if name.endswith("bias") and id(p) not in known
        ]
        if not biases:
            raise Unsupported(
                f"bias-only: {type(model).__name__} has no parameter named '...bias' outside its "
                "head; use linear-probe"
            )
        return biases + head
