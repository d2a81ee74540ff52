"""Fine-tuning on the source alone: the control of the alignment methods."""

from __future__ import annotations

from torch import Tensor

from bench import Batch, register

from ._alignment import Alignment


@register("method", "source-fine-tune")
class SourceFineTune(Alignment):
    """The alignment methods' recipe with the alignment left out: source cross-entropy alone.

    What it gains or loses on the target is owed to further source training, not to alignment.
    Its defaults are those of ``feature-alignment``; with the optimizer, schedule, passes and
    trained weights of another alignment method it is the control of that one. It takes as many
    steps as they do for the same data, but no forward pass over the target: a step costs less, and
    a short window may hold more of them. Without dropout and BatchNorm, where that pass would draw
    numbers or move running statistics, it equals ``feature-alignment`` with weight 0.
    """

    family = "reference"
    paper = "none: the control of source-supervised domain adaptation"
    equation = "min over the body: CE(source)"

    def adaptation_loss(self, source_features: Tensor, target: Batch, progress: float) -> Tensor:
        return source_features.new_zeros(())
