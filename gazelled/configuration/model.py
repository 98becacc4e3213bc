# SPDX-License-Identifier: MulanPSL-2.0
"""What may stand in a configuration file: the pydantic models, their checks, and the wording of what is wrong.

The rules that need only the file are here. What needs the machine (an offline CPU, a device with too few queues) or is
about how well a plan works is a finding of the planner. Descriptions are written for `gazelled config schema`.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable, Mapping
from difflib import get_close_matches
from typing import Annotated, Any, Literal, cast

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError
from pydantic_core import ErrorDetails

from gazelled.base.errors import ConfigError
from gazelled.configuration import settings
from gazelled.configuration.checks import (
    allowed_groups,
    allowed_users,
    cpus_of,
    devices,
    gateway_address,
    gateway_address6,
    host_address,
    host_address6,
    kind_of,
    listen_address,
    power_of_two,
    shown_as,
    some_cpus,
)
from gazelled.configuration.toml_lines import index_lines, line_of

HOST_DRIVERS = ("vfio-pci", "uio_pci_generic", "igb_uio")
_INTERFACE = re.compile(r"(?!\.{1,2}$)[^\s/:,=\x00-\x1f\x7f]{1,15}")
_PCI = re.compile(r"(?:[0-9a-f]{4}:)?[0-9a-f]{2}:[0-1][0-9a-f]\.[0-7]", re.IGNORECASE)
_SOCKET_PATH = re.compile(r"/[^\s,]{1,106}")

_DEFAULTS = settings.Config()


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, use_attribute_docstrings=False)


CpuList = Annotated[
    tuple[int, ...],
    BeforeValidator(some_cpus, json_schema_input_type=list[int] | str),
]
ExcludedCpus = Annotated[tuple[int, ...], BeforeValidator(cpus_of, json_schema_input_type=list[int] | str)]
RingSize = Annotated[int, Field(ge=64, le=32768), BeforeValidator(power_of_two)]


class Stack(_Model):
    """What holds for all workers of the instance."""

    instance: str = Field(
        _DEFAULTS.stack.instance, pattern=f"^{settings.INSTANCE_NAME}$", description="Name of the instance."
    )
    tcp_conn_count: int = Field(
        _DEFAULTS.stack.tcp_conn_count,
        ge=1,
        le=10_000_000,
        description="Connections per process that pools are sized for.",
    )
    mbuf_count_per_conn: int = Field(
        _DEFAULTS.stack.mbuf_count_per_conn, ge=1, le=65536, description="Packet buffers per such connection."
    )
    nic_read_number: int = Field(
        _DEFAULTS.stack.nic_read_number, ge=1, le=1024, description="Packets a worker takes from its queue per turn."
    )
    rpc_number: int = Field(
        _DEFAULTS.stack.rpc_number,
        ge=1,
        le=1024,
        description="Requests of one application a worker carries out per turn.",
    )
    read_connect_number: int = Field(
        _DEFAULTS.stack.read_connect_number,
        ge=1,
        le=1024,
        description="Sockets of one application a worker serves per turn, in units of 64.",
    )
    idle: Literal["adaptive", "poll"] = Field(
        "adaptive", description="What an idle worker does: sleep after a while, or poll for ever."
    )
    spin_us: int = Field(
        _DEFAULTS.stack.spin_us, ge=1, le=1_000_000, description="How long to look before sleeping, in microseconds."
    )
    app_bind_numa: bool = Field(
        _DEFAULTS.stack.app_bind_numa,
        description="Bind applications to CPUs on their workers' nodes that no worker uses.",
    )
    app_exclude_cpus: ExcludedCpus = Field((), description="CPUs applications are not bound to.")


class Process(_Model):
    """One gazelle process: `cpus`, or `recv_cpus` and `send_cpus`. Its position in the file is its process_index."""

    cpus: CpuList | None = Field(None, description="One worker per CPU.")
    recv_cpus: CpuList | None = Field(None, description="Split: CPUs of the workers that serve accepted connections.")
    send_cpus: CpuList | None = Field(None, description="Split: CPUs of the workers that serve outgoing connections.")


class Port(_Model):
    """Where packets come from and go to."""

    driver: Literal["tap", "af_xdp", "pci", "af_packet", "memif", "none"] = Field("tap", description="Kind of port.")
    device: Annotated[tuple[str, ...], BeforeValidator(devices, json_schema_input_type=str | list[str])] = Field(
        (),
        description="Interface, PCI address(es) or memif socket; absent with driver tap: a tap of the instance's own.",
    )
    rx_queue_size: RingSize = Field(_DEFAULTS.port.rx_queue_size, description="Receive descriptors per queue.")
    tx_queue_size: RingSize = Field(_DEFAULTS.port.tx_queue_size, description="Transmit descriptors per queue.")
    mtu: int | None = Field(None, ge=576, le=65535, description="MTU; absent: 1500, or the device's if that is less.")
    host_driver: Literal["vfio-pci", "uio_pci_generic", "igb_uio"] | None = Field(
        None, description="Driver that PCI functions are bound to (driver pci only; default vfio-pci)."
    )
    uplink: str | None = Field(
        None,
        description="Interface beside whose kernel the stack serves, on its addresses (driver tap only).",
    )
    past_firewall: bool = Field(
        False, description="Start with an uplink although netfilter rules of this host do not see the stack's packets."
    )


class Network(_Model):
    """The stack's own addresses."""

    host_addr: Annotated[str, BeforeValidator(host_address)] = Field(
        _DEFAULTS.network.host_addr,
        description='The stack\'s address with its prefix; with port.uplink "auto", the addresses of that interface.',
    )
    gateway_addr: Annotated[str, BeforeValidator(gateway_address)] | None = Field(
        None, description="The next hop out of the subnet; with a tap also the address of the host's side."
    )
    host_addr6: Annotated[str, BeforeValidator(host_address6)] | None = Field(
        None, description="The stack's IPv6 address with its prefix, /64; absent: the stack has no IPv6."
    )
    gateway_addr6: Annotated[str, BeforeValidator(gateway_address6)] | None = Field(
        None, description="The next hop out of the IPv6 subnet; with a tap also the address of the host's side."
    )


Users = Annotated[
    tuple[str | int, ...],
    Field(max_length=settings.ALLOWED_MAX),
    BeforeValidator(allowed_users, json_schema_input_type=list[str | int]),
]
Groups = Annotated[
    tuple[str | int, ...],
    Field(max_length=settings.ALLOWED_MAX),
    BeforeValidator(allowed_groups, json_schema_input_type=list[str | int]),
]


class Security(_Model):
    """Who may attach; root always may."""

    allow_users: Users = Field((), description='Users who may attach, by name or number; ["*"]: everybody.')
    allow_groups: Groups = Field(
        _DEFAULTS.security.allow_groups, description="Groups whose members may attach, by name or number."
    )
    foreign_namespaces: Literal["connect", "listen"] = Field(
        "connect",
        description="What programs of another network namespace may do: connect only, or own ports as well.",
    )


class Metrics(_Model):
    """Where the metrics are served for Prometheus."""

    listen: Annotated[str, BeforeValidator(listen_address)] | None = Field(
        None, description='Address and port, as "127.0.0.1:9464", or "unix:" and a path; absent: not served.'
    )


class File(_Model):
    """A whole configuration file."""

    stack: Stack = Field(default_factory=Stack)
    process: list[Process] = Field(default_factory=list, description="Absent: one process with up to two CPUs.")
    port: Port = Field(default_factory=Port)
    network: Network = Field(default_factory=Network)
    security: Security = Field(default_factory=Security)
    metrics: Metrics = Field(default_factory=Metrics)


def schema() -> dict[str, Any]:
    """Return the JSON Schema of a configuration file."""
    return {**File.model_json_schema(), "title": "gazelle.toml"}


_Where = tuple[str | int, ...]
_Problem = tuple[_Where, str]  # where, and the rest of the line


def _key(where: _Where) -> str:
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in where).lstrip(".")


_TYPES = {
    "string_type": "a string",
    "bool_type": "true or false",
    "list_type": "an array of tables ([[process]])",
    "model_type": "a table",
    "model_attributes_type": "a table",
    "dict_type": "a table",
}


def _line(what: str, allowed: str, hint: str = "") -> str:
    return f"{what}; allowed: {allowed}" + (f" ({hint})" if hint else "")


def _describe(error: ErrorDetails) -> _Problem:
    """Say one of pydantic's errors in our words: value, what is wrong, what is allowed, hint."""
    where = error["loc"]
    kind, value, context = error["type"], error["input"], error.get("ctx", {})
    shown = f"{_key(where)}: {shown_as(value)}"
    if kind == "gazelled":
        return where, _line(f"{shown} {context['what']}", context["allowed"], context["hint"])
    if kind in ("extra_forbidden", "unexpected_keyword_argument"):
        return where, _unknown_key(where)
    if kind in ("greater_than_equal", "less_than_equal"):
        low, high = _bounds(where)
        side = "too small" if kind == "greater_than_equal" else "too large"
        return where, _line(f"{shown} is {side}", f"{low} to {high}")
    if kind == "literal_error":
        choices = _choices(where)
        close = get_close_matches(str(value), choices, 1)
        hint = f'did you mean "{close[0]}"?' if close else ""
        return where, _line(f"{shown} is unknown", ", ".join(f'"{each}"' for each in choices), hint)
    if kind == "string_pattern_mismatch":
        allowed = "1 to 31 letters, digits, '-' and '_', the first a letter or digit"
        return where, _line(f"{shown} is no instance name", allowed)
    if kind == "int_type":
        low, high = _bounds(where)
        hint = "without quotes" if isinstance(value, str) and value.strip().isdecimal() else ""
        return where, _line(f"{shown} is {kind_of(value)}", f"an integer, {low} to {high}", hint)
    return where, _line(f"{shown} is {kind_of(value)}", _TYPES.get(kind, error["msg"]))


_TABLES: Mapping[str, type[_Model]] = {
    "stack": Stack, "process": Process, "port": Port, "network": Network, "security": Security,
    "metrics": Metrics,
}  # fmt: skip


def _unknown_key(where: _Where) -> str:
    key = str(where[-1])
    table = _TABLES.get(str(where[0])) if len(where) > 1 else None
    allowed = list(table.model_fields) if table else list(File.model_fields)
    close = get_close_matches(key, allowed, 1)
    if close:
        hint = f'did you mean "{close[0]}"?'
    else:
        homes = [name for name, each in _TABLES.items() if key in each.model_fields]
        home = "[[process]]" if homes == ["process"] else f"[{homes[0]}]" if homes else ""
        hint = f"it belongs into {home}" if home else f"allowed: {', '.join(allowed)}"
    return f"{_key(where)}: unknown key ({hint})"


def _field_schema(where: _Where) -> dict[str, Any]:
    table = _TABLES[str(where[0])]
    found = table.model_json_schema()["properties"][str(where[-1])]
    return cast("dict[str, Any]", next((each for each in found.get("anyOf", []) if "type" in each), found))


def _bounds(where: _Where) -> tuple[int, int]:
    found = _field_schema(where)
    return found["minimum"], found["maximum"]


def _choices(where: _Where) -> list[str]:
    return list(_field_schema(where)["enum"])


def _relations(data: Mapping[str, Any], wrong: set[_Where]) -> list[_Problem]:
    """Check what concerns several keys of a table, as far as those keys are right in themselves."""
    problems: list[_Problem] = []
    processes = data.get("process", [])
    for i, process in enumerate(processes if isinstance(processes, list) else []):
        # A key that is unknown was probably meant to be one of these: it is reported once, as such.
        if isinstance(process, dict) and not set(process) - set(Process.model_fields):
            problems += _process_problems(("process", i), process)
    port = data.get("port", {})
    if not wrong & {("port",), ("port", "driver"), ("port", "device")}:
        right = {key: port[key] for key in port if ("port", key) not in wrong}
        problems += _port_problems(Port.model_validate(right), right)
        network = data.get("network", {})
        problems += _uplink_problems(right, network if isinstance(network, dict) else {})
    return problems


def _process_problems(where: _Where, process: Mapping[str, Any]) -> list[_Problem]:
    split = [key for key in ("recv_cpus", "send_cpus") if key in process]
    if "cpus" in process and split:
        both = "cpus" if len(split) == 2 else split[0]
        text = "cpus together with " + " and ".join(split)
        return [((*where, both), f"{_key(where)}: {text}; allowed: cpus, or recv_cpus and send_cpus (the split)")]
    if len(split) == 1:
        missing = "send_cpus" if split == ["recv_cpus"] else "recv_cpus"
        text = f"{_key(where)}: {split[0]} without {missing}; allowed: cpus, or recv_cpus and send_cpus (the split)"
        return [((*where, split[0]), text)]
    if not split and "cpus" not in process:
        return [(where, f"{_key(where)}: no CPUs; allowed: cpus, or recv_cpus and send_cpus (the split)")]
    return []


def _port_problems(port: Port, written: Mapping[str, Any]) -> list[_Problem]:
    problems: list[_Problem] = []
    device: _Where = ("port", "device")

    def wrong(where: _Where, what: str, allowed: str, hint: str = "") -> None:
        problems.append((where, _line(what, allowed, hint)))

    if port.driver != "pci" and port.host_driver is not None:
        wrong(
            ("port", "host_driver"),
            f'port.host_driver: "{port.host_driver}" has no meaning with driver "{port.driver}"',
            'only with driver "pci"',
            "leave it out",
        )
    if port.driver == "none" and port.device:
        wrong(device, f'port.device: {shown_as(written["device"])} has no meaning with driver "none"', "no device")
    if port.driver not in ("none", "tap") and not port.device:
        wrong(
            ("port", "driver"), f'port.driver: "{port.driver}" without port.device', f"a device: {_FORMS[port.driver]}"
        )
    if port.driver != "pci" and len(port.device) > 1:
        wrong(device, f"port.device: {shown_as(written['device'])} is a list", _FORMS.get(port.driver, "no device"))
    elif port.driver in _FORMS:
        for i, each in enumerate(port.device):
            where = (*device, i) if isinstance(written["device"], list) else device
            if not _FORM_CHECKS[port.driver](each):
                pci = _PCI.fullmatch(each) and port.driver in ("af_xdp", "af_packet", "tap")
                hint = "`gazelled nics` shows both" if pci or port.driver == "pci" else ""
                wrong(
                    where, f'{_key(where)}: "{each}" is no device of driver "{port.driver}"', _FORMS[port.driver], hint
                )
    full = [_full_pci(each) for each in port.device]
    for i, each in enumerate(full):
        if each in full[:i]:
            wrong((*device, i), f'{_key((*device, i))}: "{port.device[i]}" is there twice', "a PCI function per worker")
    return problems


def _uplink_problems(port: Mapping[str, Any], network: Mapping[str, Any]) -> list[_Problem]:
    """Check what an uplink rules out: the interface has the addresses, and the tap behind it is the instance's own."""
    uplink, where = port.get("uplink"), ("port", "uplink")
    auto = network.get("host_addr") == settings.AUTO
    if not isinstance(uplink, str):
        text = 'network.host_addr: "auto" without port.uplink; allowed: an address with its prefix'
        return [(("network", "host_addr"), text)] if auto else []
    problems: list[_Problem] = []
    if not _is_interface(uplink):
        problems.append((where, f'port.uplink: "{uplink}" is no interface; allowed: {_FORMS["af_xdp"]}'))
    if port.get("driver", "tap") != "tap":
        problems.append((where, f'port.uplink: no meaning with driver "{port["driver"]}"; allowed: only with "tap"'))
    if port.get("device"):
        problems.append((("port", "device"), "port.device: together with port.uplink; allowed: one of the two"))
    if port.get("mtu") is not None:
        problems.append((("port", "mtu"), "port.mtu: together with port.uplink; allowed: nothing, it is the uplink's"))
    for key in network:
        if key in Network.model_fields and not (key == "host_addr" and auto):
            allowed = '"auto", or nothing' if key == "host_addr" else "nothing"
            problems.append(
                (("network", key), f"network.{key}: the addresses and routes are port.uplink's; allowed: {allowed}")
            )
    return problems


def _is_interface(name: str) -> bool:
    return _INTERFACE.fullmatch(name) is not None and len(name.encode()) <= 15 and not _PCI.fullmatch(name)


_FORMS = {
    "tap": "an interface name of at most 15 bytes, or no device: a tap of the instance's own",
    "af_xdp": "an interface name of at most 15 bytes",
    "af_packet": "an interface name of at most 15 bytes",
    "pci": 'a PCI address, as "0000:03:00.0", or a list of them, one per worker',
    "memif": "the absolute path of a socket, without blanks and commas",
}
_FORM_CHECKS: dict[str, Callable[[str], bool]] = {
    "tap": _is_interface,
    "af_xdp": _is_interface,
    "af_packet": _is_interface,
    "pci": lambda name: _PCI.fullmatch(name) is not None,
    "memif": lambda name: _SOCKET_PATH.fullmatch(name) is not None,
}


def _full_pci(address: str) -> str:
    if not _PCI.fullmatch(address):
        return address
    address = address.lower()
    return address if address.count(":") == 2 else f"0000:{address}"


def parse_config(text: str, source: str) -> settings.Config:
    """Read a configuration file's text; ConfigError with all that is wrong, one "source:line: ..." each, by line."""
    try:
        data = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError([_syntax(str(error), source, text)]) from error
    problems: list[_Problem] = []
    model: File | None = None
    try:
        model = File.model_validate(data)
    except ValidationError as error:
        problems = [_describe(each) for each in error.errors(include_url=False)]
    problems += _relations(data, {where for where, _ in problems})
    if problems or model is None:
        lines = index_lines(text)
        placed = sorted({(line_of(lines, where), text) for where, text in problems})
        hint = "`gazelled config schema` has every key with its type, range and meaning"
        raise ConfigError([f"{source}:{line}: {text}" for line, text in placed], hint=hint)
    return _effective(model, source)


def _syntax(message: str, source: str, text: str) -> str:
    """Say a TOML syntax error with the line in front."""
    match = re.search(r" \(at (?:line (\d+), column \d+|end of document)\)$", message)
    line = match[1] if match and match[1] else str(max(1, len(text.splitlines())))
    return f"{source}:{line}: {message[: match.start()] if match else message}"


def _effective(model: File, source: str) -> settings.Config:
    port = model.port
    host_driver = (port.host_driver or HOST_DRIVERS[0]) if port.driver == "pci" else None
    device = tuple(_full_pci(each) for each in port.device) if port.driver == "pci" else port.device
    return settings.Config(
        stack=settings.StackConfig(**dict(model.stack)),
        process=tuple(
            settings.ProcessConfig(each.cpus or (), each.recv_cpus or (), each.send_cpus or ())
            for each in model.process
        ),
        port=settings.PortConfig(**{**dict(port), "device": device, "host_driver": host_driver}),
        network=settings.NetworkConfig(host_addr=settings.AUTO)
        if port.uplink is not None
        else settings.NetworkConfig(**dict(model.network)),
        security=settings.SecurityConfig(**dict(model.security)),
        metrics=settings.MetricsConfig(**dict(model.metrics)),
        source=source,
    )
