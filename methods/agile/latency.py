"""Latency of an offloaded sample in four parts, and its energy, on a modelled microcontroller.

Local computation is the counted prediction on the device's profile; the server's is measured here.
"""

from __future__ import annotations

from typing import Any

from bench.costs.device_profile import ModelledDevice, Quantity
from bench.costs.tracker import DeviceCosts
from bench.records.record import Amount

MICROCONTROLLER = 1e7
"""Bytes of memory below which a device is taken as one: cycles of an encoder are known there."""

CYCLES_PER_SYMBOL = Quantity(
    value=22.0,
    confidence="derived",
    source=(
        "AgileNN (Huang and Gao, MobiCom 2022) on CIFAR-100 at 216 MHz: about 2 ms of compression, "
        "read off Fig. 16, for 19 x 32 x 32 symbols of 3 bits"
    ),
)
"""Processor cycles of LZW for one symbol; taken for the other coders too."""

RADIO_W = Quantity(
    value=0.4455,
    confidence="datasheet",
    source=(
        "Espressif ESP8266 datasheet: 135 mA while it transmits 802.11n at MCS7, times 3.3 V; "
        "what the radio draws while it waits is not known and left out"
    ),
)
"""Watts of the radio while bytes pass, besides the board's."""

_MODELLED, _MEASURED = "modelled", "measured"


class Parts:
    """Seconds of one sample on one device, each with how it is known."""

    def __init__(self, device: DeviceCosts, told: Any, config: Any, symbols: int) -> None:
        self._device, self._told, self._config, self._symbols = device, told, config, symbols
        profile = getattr(device, "profile", None)
        small = isinstance(profile, ModelledDevice) and profile.memory.value < MICROCONTROLLER
        self._board: ModelledDevice | None = profile if small else None

    def amounts(self) -> dict[str, Amount]:
        """By name, for a record's costs."""
        parts = {
            "latency_local": self._local(),
            "latency_encoding": self._encoding(),
            "latency_transmission": self._transmission(),
            "latency_remote": self._remote(),
        }
        return {**parts, "latency": self._sum(parts), "offload_energy": self._energy(parts)}

    def _local(self) -> Amount:
        cost, n = self._device.inference, self._device.inference_samples
        if cost is None:
            return _unknown("s/sample", "no prediction was priced")
        return Amount(
            value=cost.time_s / n, unit="s/sample", kind=self._device.kind, how=self._device.how
        )

    def _encoding(self) -> Amount:
        if not self._symbols:
            return _known(0.0, _MODELLED, "nothing is coded")
        if self._board is None:
            return _unknown("s/sample", "cycles of the coder are known of a microcontroller alone")
        sent = 1 - self._told.mean(self._told.alone[self._told.kept])
        clock = self._board.flops["float32"].value / 2  # a multiply-add in each cycle
        value = sent * self._symbols * CYCLES_PER_SYMBOL.value / clock
        return _known(value, _MODELLED, f"{CYCLES_PER_SYMBOL.value:g} cycles a symbol, published")

    def _transmission(self) -> Amount:
        rate = getattr(self._config, "rate_kbps", 0.0) * 1e3
        if not rate:
            return _known(0.0, _MODELLED, "nothing is sent")
        size = self._told.mean(self._told.up + self._told.down)
        waits = self._told.mean(self._told.lost) * self._config.deadline_ms * 1e-3
        how = "8 x bytes on the link / its rate, and the deadline for messages without an answer"
        return _known(8 * size / rate + waits, _MODELLED, how)

    def _remote(self) -> Amount:
        if not self._told.answered:
            return _known(0.0, _MODELLED, "the server answered nothing")
        how = "wall clock of the server's process on the machine that computes"
        return _known(self._told.mean(self._told.remote_s), _MEASURED, how)

    def _sum(self, parts: dict[str, Amount]) -> Amount:
        values = [part.value for part in parts.values()]
        if None in values:
            return _unknown("s/sample", "a part of it is unavailable")
        total = sum(value for value in values if value is not None)
        return _known(total, _MODELLED, "sum of the four parts, the server's measured here")

    def _energy(self, parts: dict[str, Amount]) -> Amount:
        total, sending = self._sum(parts).value, parts["latency_transmission"].value
        if self._board is None or total is None or sending is None:
            return _unknown("J/sample", "known of a microcontroller alone, whose radio is stated")
        value = self._board.power_budget.value * total + RADIO_W.value * sending
        how = "the board's watts over the whole latency, and the radio's while bytes pass"
        return Amount(value=value, unit="J/sample", kind=_MODELLED, how=how)


def _known(value: float, kind: Any, how: str) -> Amount:
    return Amount(value=value, unit="s/sample", kind=kind, how=how)


def _unknown(unit: str, why: str) -> Amount:
    return Amount(value=None, unit=unit, kind="unavailable", how=why)
