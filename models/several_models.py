"""A foundation model for each of several applications with tasks of their own."""

from __future__ import annotations

from typing import Any, ClassVar

import pydantic
from pydantic import Field

from bench import BenchError, FoundationModel, ModelConfig, SourceTraining, Stream, register
from bench.contracts.choice import Choice
from bench.io.digest import digest
from bench.tasks.applications import MOST, ApplicationModels


class ModelChoice(Choice):
    """A registered model with its settings, as one setting of another."""

    kind: ClassVar[str] = "model"
    title: ClassVar[str] = "model"


class Models(pydantic.RootModel[tuple[ModelChoice, ...]], frozen=True):
    """A model for each application, from two to `MOST`."""

    root: tuple[ModelChoice, ...] = Field(min_length=2, max_length=MOST)

    def content_digest(self) -> str:
        """Digest of settings, files and code of all."""
        return digest([each.content_digest() for each in self.root])


def _small() -> Models:
    return Models.model_validate(["small-classifier", "small-classifier"])


class SeveralModelsConfig(ModelConfig):
    """``models``: one for each application of the stream, in its order, each by its name or with
    its settings, as ``{name: small-tagger, width: 32}``; by default two small classifiers.
    """

    models: Models = Field(default_factory=_small)


@register("model", "several-models", task="several-tasks")
class SeveralModels(ApplicationModels):
    """A model for each application of a stream of several tasks, trained on the source together.

    Each is trained on its own samples of every batch, with the epochs, batch size and learning rate
    that all have in common.
    """

    Config = SeveralModelsConfig
    source_training = SourceTraining(epochs=20, learning_rate=1e-3)
    preload = ("timm.models.vision_transformer",)

    @classmethod
    def build_for(cls, config: SeveralModelsConfig, stream: Stream) -> FoundationModel:
        """BenchError unless there is a model of the right task for each application."""
        choices, applications = config.models.root, stream.applications
        if len(choices) != len(applications):
            raise BenchError(
                f"several-models: has {len(choices)} models, and the stream {len(applications)} "
                "applications: name one for each under 'models'"
            )
        models = []
        for app, (choice, facts) in enumerate(zip(choices, applications, strict=True)):
            model_class: Any = choice.component
            if model_class.task != facts.task:
                raise BenchError(
                    f"several-models: application {app} is {facts.task}, and {choice.name} does "
                    f"{model_class.task}: name a model of the application's task"
                )
            models.append(model_class.build(choice.checked(), facts.input_shape, facts.classes))
        return cls(models, applications)
