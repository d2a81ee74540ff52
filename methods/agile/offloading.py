"""What offloading methods share: predicting, with a server behind a link, and adapting."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from bench import BenchError, DomainView, FoundationModel, Method, Unsupported, Window
from bench.contracts.data import Inputs, take
from bench.contracts.method import only_shapes
from bench.costs.tracker import DeviceCosts
from bench.records.cell import Cell
from bench.records.record import Amount

from .._losses import entropy, take_step
from .._shared import Shared
from .coding import Coder
from .latency import Parts
from .link import RATE_0, Link, LinkSettings
from .networks import OnDevice, activation_bytes
from .told import Told

SAMPLES = 64
"""Of the source, to whose features fresh layers are scaled."""


@dataclass(frozen=True)
class Made:
    """What the offline stage made.

    ``device``: computes ``features``, ``predicted`` and ``combined``, see `networks.DevicePart`;
    ``answer``: what the server does with a message, None where there is no server; ``coder``: of
    what is sent; ``facts``: for the record.
    """

    device: Any
    answer: Callable[[bytes], bytes] | None
    coder: Coder | None
    facts: dict[str, Any]


class Server:
    """From a message to the logits, as the server's process computes them.

    ``values``: of each symbol; ``shape``: of what the network gets for one sample.
    """

    def __init__(
        self, network: nn.Module, coder: Coder, values: Tensor, shape: Sequence[int]
    ) -> None:
        self.network = network.cpu().float().eval()
        self._coder, self._values, self._shape = coder, values.detach().cpu().float(), tuple(shape)

    def __call__(self, message: bytes) -> bytes:
        symbols = np.frombuffer(self._coder.decode(message), np.uint8).astype(np.int64)
        x = self._values[torch.from_numpy(symbols)].reshape(1, *self._shape)
        logits: Any = self.network(x)[0].float().numpy().astype(np.float32)
        return bytes(logits.tobytes())


class Offloading(Method):
    """A method whose device has a part of the network, and a link to the rest.

    A subclass says in `make` what that is. Predictions of the device alone stand where the server
    gives none, and the record counts them with the reason.
    """

    config: Any
    family = "reference"
    tasks = ("classification",)
    answers_alone: ClassVar[bool] = True
    """Whether the device has a prediction of its own."""

    @abstractmethod
    def make(self, model: FoundationModel, source: DomainView, x: Tensor, classes: int) -> Made:
        """Train or read from the cache what the device and the server get.

        ``model`` is a copy in float32; ``x``: the first samples, at most 64.
        """

    def wanted(self, local: Tensor) -> Tensor:
        """Which samples go to the server, bool (n,), by local logits; default: all."""
        return torch.ones(len(local), dtype=torch.bool, device=local.device)

    def symbols(self, features: Tensor) -> Tensor:
        """What is sent of each sample, as uint8 symbols (n, ...)."""
        device: Any = self.model.module
        found: Tensor = device.quantiser.symbols(device.to_send(features))
        return found

    def messages(self, features: Tensor, chosen: Tensor) -> list[bytes]:
        """A message for each of the chosen samples."""
        assert self.coder is not None
        rows = self.symbols(features)[chosen].flatten(1).cpu().numpy()
        symbols = [row.tobytes() for row in rows]
        self.told.keep(symbols)
        return [self.coder.encode(each) for each in symbols]

    @classmethod
    def skip(cls, cell: Cell) -> str | None:
        """Without a link there is no prediction where the device has none of its own."""
        if not cls.answers_alone and cell.method.config.get("rate_kbps", 1.0) == 0:
            return f"all its predictions are the server's, and {RATE_0}"
        return None

    def prepare(self, model: FoundationModel, source: DomainView) -> None:
        x = take(source.x, torch.arange(min(len(source), SAMPLES)))
        if isinstance(x, dict) or x.ndim != 4:
            raise Unsupported("offloading methods split networks of images (n, channels, h, w)")
        own = model.clone()
        own.module.float()
        own.train(False)
        with torch.no_grad():
            classes = own(x.float()).shape[1]
        with torch.random.fork_rng(devices=[]):  # fresh layers are those of the cached stage
            torch.manual_seed(source.draw)
            made = self.make(own, source, x.float(), classes)
        self.facts, self.coder, self.classes = made.facts, made.coder, classes
        self.model = OnDevice(made.device)
        self.model.module.to(x.device).requires_grad_(False).eval()
        self.ram_bytes = activation_bytes(self.model.module, x[:1].float())
        trained = self.adapted(made.device)
        for parameter in trained:
            parameter.requires_grad_(True)
        rate = getattr(self.config, "adapt_rate", 1.0)
        self.optimizer = torch.optim.SGD(trained, lr=rate) if trained else None
        kept = "confident" if made.answer is not None else "no server"
        self._told, self._told_adapting = Shared(Told(kept)), Shared(Told(kept))
        seed = int(torch.randint(2**31, (1,)))
        self._link: Shared[Link] | None = None
        if made.answer is not None and not only_shapes():
            self._link = Shared(Link(self._link_settings(seed), made.answer))

    def adapted(self, device: Any) -> list[nn.Parameter]:
        """Parameters that adapt on the device; default: by the setting ``adapts``, if any."""
        adapts = getattr(self.config, "adapts", "nothing")
        found: list[nn.Parameter] = []
        if adapts in ("weight", "both") and device.weight is not None:
            found.append(device.weight)
        if adapts in ("local", "both") and device.head is not None:
            found += device.head.parameters()
        return found

    def adapt(self, domain: DomainView, window: Window) -> None:
        if self.optimizer is None:
            return
        for batch in window.steps(domain.batches()):
            loss = entropy(self._outputs(batch.x, self._told_adapting.thing)).mean()
            if loss.requires_grad:
                take_step(self.optimizer, loss)
            window.log(entropy=loss.detach())

    def predict(self, x: Inputs) -> Tensor:
        return self._outputs(x, self.told)

    def details(self) -> dict[str, Any]:
        """How the device's part was trained, who answered, bytes, and the link at its own rate.

        ``device_flash_bytes``: its weights in float32; ``device_ram_bytes``: the inputs and outputs
        of its largest layer for one sample, without the coder's dictionary and the program.
        """
        device: Any = self.model.module
        parameters = sum(p.numel() for p in device.parameters())
        known: dict[str, Any] = {
            "offline": self.facts,
            "predicting": self.told.facts(self.coder, self.link),
            "adapting": self._told_adapting.thing.facts(None, None) if self.optimizer else None,
            "device_parameters": parameters,
            "device_flash_bytes": 4 * parameters,
            "device_ram_bytes": self.ram_bytes,
        }
        if getattr(device, "weight", None) is not None:
            known["alpha"] = float(device.alpha.detach())
        return {"offloading": known, **({"notes": notes} if (notes := self._notes()) else {})}

    def further_costs(self, device: DeviceCosts) -> Mapping[str, Amount]:
        """Latency of a sample in four parts and its energy, and the bytes of a sample."""
        sends = self.coder is not None and self.link is not None and self.link.down != RATE_0
        count = self.coder.count if sends and self.coder is not None else 0
        amounts = Parts(device, self.told, self.config, count).amounts()
        how = "counted on the link, headers included; mean over all samples"
        size = self.told.mean(self.told.up + self.told.down)
        sent = Amount(value=size, unit="B/sample", kind="measured", how=how)
        return {**amounts, "bytes_sent": sent}

    @property
    def link(self) -> Link | None:
        """The link to the server; None where there is none."""
        return None if self._link is None else self._link.thing

    @property
    def told(self) -> Told:
        """Counts of what was predicted."""
        return self._told.thing

    def stored(self) -> Any:
        """The device's part and its optimizer; the server's is not on the device."""
        return [self.model.module, self.optimizer]

    def state(self) -> dict[str, Any]:
        return {"device": {k: v.clone() for k, v in self.model.module.state_dict().items()}}

    def load_state(self, state: Mapping[str, Any]) -> None:
        self.model.module.load_state_dict(state["device"])

    # -----------------------------------------------------------------------

    def _link_settings(self, seed: int) -> LinkSettings:
        c = self.config
        return LinkSettings(c.rate_kbps * 1e3, c.loss, c.corruption, c.dies_after, seed)

    def _outputs(self, x: Inputs, told: Told) -> Tensor:
        """Predictions, combined with the server's where it answers."""
        device: Any = self.model.module
        assert isinstance(x, Tensor)
        with torch.no_grad():
            features: Tensor = device.features(x)
        local: Tensor = device.predicted(features)
        if self.coder is None:
            told.add(len(x), [], [])
            return local
        remote, answered = self._asked(features, local.detach(), told)
        combined: Tensor = device.combined(local, remote)
        return torch.where(answered.unsqueeze(1), combined, local)

    def _asked(self, features: Tensor, local: Tensor, told: Told) -> tuple[Tensor, Tensor]:
        """The server's logits (n, classes), zeros where there are none; and where there are."""
        n, place = len(features), features.device
        if self.link is None:  # only shapes count
            self.symbols(features)
            return local.new_zeros(n, self.classes), torch.ones(n, dtype=torch.bool, device=place)
        wanted = self.wanted(local)
        if self.link.down == RATE_0:
            messages = [b""] * int(wanted.sum())
        else:
            messages = self.messages(features, wanted)
        answers = self.link.ask(messages)
        told.add(n, messages, answers)
        logits = np.zeros((n, self.classes), np.float32)
        has = np.zeros(n, bool)
        for at, answer in zip(wanted.nonzero().flatten().tolist(), answers, strict=True):
            if answer.value is not None:
                logits[at] = self._logits(answer.value)
                has[at] = True
        return torch.from_numpy(logits).to(place), torch.from_numpy(has).to(place)

    def _logits(self, value: bytes) -> Any:
        found = np.frombuffer(value, np.float32)
        if len(found) != self.classes or not all(map(math.isfinite, found)):
            raise BenchError(
                f"the server's answer of {len(found)} numbers is no {self.classes} logits"
            )
        return found

    def _notes(self) -> list[str]:
        """What readers of tables must know: answers that were missing."""
        name = type(self).registered_name
        reasons = sorted(set(self.told.alone) - {self.told.kept})
        if not reasons or reasons == [RATE_0]:
            return []
        alone = "the device answers alone" if self.answers_alone else "the first class is predicted"
        why = "; ".join(reasons)
        return [f"{name}: where the server gives no answer ({why}) {alone}; details count it"]
