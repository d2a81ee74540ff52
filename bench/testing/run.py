"""One run of a method, without a suite, a store or a process of its own."""

from __future__ import annotations

from typing import Any

import torch

from bench.accelerator.choice import Kind
from bench.accelerator.determinism import device_of, seed_everything
from bench.contracts.data import DomainView
from bench.contracts.method import Method
from bench.contracts.model import FoundationModel
from bench.contracts.protocol import protocol_config
from bench.contracts.stream import Stream
from bench.costs.device_profile import DeviceProfile
from bench.costs.factory import make_tracker
from bench.run.protocols.base import Deployment, StreamResult, run_stream
from bench.run.validity import build_stream
from bench.testing.makers import make_device
from bench.testing.parts import TinyModel, TinyStream


def run_method(
    method: Method,
    *,
    model: FoundationModel | None = None,
    stream: Stream | None = None,
    device: DeviceProfile | None = None,
    labelled: bool = False,
    seed: int = 0,
    accelerator: Kind = "cpu",
    **protocol: Any,
) -> StreamResult:
    """Prepare a method and take it through a stream under a protocol, as a run does.

    Parameters
    ----------
    model : as trained on the source; by default a `TinyModel` with weights drawn by ``seed``
    stream : by default `TinyStream`
    device : by default `make_device`'s, where each operator takes one second
    labelled : whether target domains have labels for the method
    accelerator : where it is computed, "cpu" or "cuda"
    protocol : settings of the protocol, as ``name="online"``, ``window_s=20``, ``batch_size=4``

    Raises what the method raises, and `bench.errors.DeviceOutOfMemory` where the device is too
    small. The source is closed after ``prepare`` unless the method needs it.
    """
    seed_everything(seed)
    stream = stream or TinyStream(seed=seed)
    model = model or TinyModel.build(None, stream.input_shape, stream.classes)
    config = protocol_config(protocol)
    tracker = make_tracker([device or make_device()], method.stored, accelerator=accelerator)
    model.train(False)
    place = device_of(accelerator)
    model.module.to(place)
    built = build_stream(stream).on(place)
    split = built.source.adaptation
    generator = torch.Generator().manual_seed(seed)
    source = DomainView(
        "source", split.x, split.y, config.batch_size, generator, least_batch=model.least_batch
    )
    method.prepare(model, source)
    if "source_data" not in method.needs:
        source.close("the source is not on the device: declare needs = ('source_data',)")
    return run_stream(config, Deployment(method, built, tracker, labelled, seed))
