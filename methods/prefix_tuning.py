"""Prefix tuning: keys and values before the text, trained in every layer of a frozen decoder."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, ClassVar, Literal, cast

import torch
from pydantic import Field
from torch import Tensor, nn

from bench import BenchError, DomainView, FoundationModel, Unsupported, register, take, tunable
from bench.contracts.data import Inputs

from ._supervised import SupervisedConfig, SupervisedMethod


class PrefixConfig(SupervisedConfig):
    """Settings of `SupervisedConfig`, and of the prefix.

    ``prefix``: places before the text; ``begin``: keys and values at first, ``normal`` as the
    library peft draws them, or those of ``words``, a source text's first tokens, which the paper
    finds better where data are few; ``positions``: of the text, ``moved`` behind the prefix, or
    ``kept`` as they are without it, so that no position is new to a small model.
    """

    prefix: int = Field(20, ge=1, le=1000)
    begin: Literal["normal", "words"] = "normal"
    positions: Literal["moved", "kept"] = "moved"
    learning_rate: float = tunable(1e-2, 1e-4, 1e-1, log=True, ge=1e-8, le=1.0)


class Prefix(nn.Module):
    """Keys and values of each layer, (heads, places, head width), the same for all samples."""

    def __init__(self, layers: list[tuple[Tensor, Tensor]]) -> None:
        super().__init__()
        self.keys = nn.ParameterList(nn.Parameter(k.detach().clone()) for k, _ in layers)
        self.values = nn.ParameterList(nn.Parameter(v.detach().clone()) for _, v in layers)

    @property
    def places(self) -> int:
        """How many there are before a text."""
        return int(self.keys[0].shape[1])

    def cache(self, n: int) -> Any:
        """A cache of transformers that n texts begin with."""
        from transformers import DynamicCache

        made = DynamicCache()
        for layer, (k, v) in enumerate(zip(self.keys, self.values, strict=True)):
            made.update(k.expand(n, -1, -1, -1), v.expand(n, -1, -1, -1), layer)
        return made


@register("method", "prefix-tuning")
class PrefixTuning(SupervisedMethod):
    """Prefix tuning (Li and Liang, ACL 2021) of a causal language model of transformers.

    Attention looks at the prefix of each layer as at words before the text. The network is frozen,
    and the prefix goes on from domain to domain. Keys and values are trained themselves, as in
    peft; the paper makes them of a smaller matrix by a network that is thrown away afterwards.
    """

    Config = PrefixConfig
    config: PrefixConfig
    tasks = ("generation",)
    shifts: ClassVar[tuple[Any, ...]] = ("domain",)
    conformance_on: ClassVar[dict[str, Any]] = {
        "stream": {
            "name": "domain-shift", "source_share": 0.3, "samples": 400, "test_samples": 60,
            "data": {"name": "docstrings", "packages": ["numpy"], "tokens": 24, "words": 100},
        },
        "model": {
            "name": "opt", "changes": {
                "hidden_size": 16, "word_embed_proj_dim": 16, "num_hidden_layers": 2,
                "num_attention_heads": 2, "ffn_dim": 32, "max_position_embeddings": 64,
            },
        },
    }  # fmt: skip
    paper = "Li, Liang: Prefix-Tuning: Optimizing Continuous Prompts for Generation, ACL 2021"
    equation = "min over P_k, P_v of each layer: CE with attention to [P_k; K] and values [P_v; V]"

    def prepare(self, model: FoundationModel, source: DomainView) -> None:
        self.model = model
        self.begin(source)
        module: Any = model.module
        known = inspect.signature(module.forward).parameters
        config = getattr(module, "config", None)
        if "past_key_values" not in known or getattr(config, "is_encoder_decoder", False):
            raise Unsupported(
                f"prefix-tuning: {type(module).__name__} is no causal language model of "
                "transformers, whose layers take keys and values from before; use lora or bias-only"
            )
        if self.config.positions == "kept" and "position_ids" not in known:
            raise Unsupported(
                f"prefix-tuning: {type(module).__name__} takes no position_ids, so that positions "
                "cannot be kept; set positions: moved"
            )
        first = cast(dict[str, Tensor], take(source.x, torch.arange(1)))
        self.prefix = Prefix(self._first(first))
        self._require_room(first)
        self.train_only(list(self.prefix.parameters()))

    def outputs(self, x: Inputs) -> Tensor:
        with self._inserted():
            return super().outputs(x)

    def predict(self, x: Inputs) -> Tensor:
        with self._inserted():
            return super().predict(x)

    @torch.no_grad()
    def _first(self, x: dict[str, Tensor]) -> list[tuple[Tensor, Tensor]]:
        """Keys and values that the prefix begins with; ``x``: one text of the source."""
        c, module = self.config, cast(Any, self.model.module)
        ids = x["input_ids"][x["attention_mask"].bool()]
        ids = ids.repeat(-(-c.prefix // len(ids)))[: c.prefix].unsqueeze(0)
        self.model.train(False)
        seen = torch.ones_like(ids)
        made = module(input_ids=ids, attention_mask=seen, use_cache=True).past_key_values
        found = [(layer.keys[0], layer.values[0]) for layer in made.layers]
        if c.begin == "normal":
            return [(torch.randn_like(k), torch.randn_like(v)) for k, v in found]
        return found

    def _require_room(self, x: Inputs) -> None:
        try:
            with torch.no_grad():
                self.predict(x)
        except IndexError as error:
            raise BenchError(
                f"prefix: {self.config.prefix} places and a text are longer than the model has "
                "positions; give fewer places, shorter texts, or positions: kept"
            ) from error

    @contextmanager
    def _inserted(self) -> Iterator[None]:
        """Inside, a pass through the network begins with the prefix."""
        keep = self.config.positions == "kept"

        def put(_: nn.Module, inputs: Any, named: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
            mask = named["attention_mask"]
            n = len(mask)
            more: dict[str, Any] = {
                "past_key_values": self.prefix.cache(n),
                "attention_mask": torch.cat([mask.new_ones(n, self.prefix.places), mask], dim=1),
            }
            if keep:
                more["position_ids"] = (mask.cumsum(dim=1) * mask - 1).clamp_min(0)
            return inputs, {**named, **more}

        handle = self.model.module.register_forward_pre_hook(put, with_kwargs=True)
        try:
            yield
        finally:
            handle.remove()
