# SPDX-License-Identifier: MulanPSL-2.0
"""Where the configuration is looked for, and how it is loaded.

The values are gazelled.configuration.settings, to be had from here as well. What may stand in a file is in
gazelled.configuration.model, loaded only when there is a file to read.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from gazelled.base.errors import ConfigError
from gazelled.configuration.settings import (
    AUTO,
    BUILT_IN,
    DEFAULT_INSTANCE,
    EVERYBODY,
    OWN_NAME,
    Config,
    MetricsConfig,
    NetworkConfig,
    PortConfig,
    ProcessConfig,
    SecurityConfig,
    StackConfig,
)

__all__ = [
    "AUTO",
    "BUILT_IN",
    "DEFAULT_INSTANCE",
    "DEFAULT_PATH",
    "EVERYBODY",
    "OWN_NAME",
    "Config",
    "MetricsConfig",
    "NetworkConfig",
    "PortConfig",
    "ProcessConfig",
    "SecurityConfig",
    "StackConfig",
    "Uplink",
    "find_config",
    "load_config",
]

DEFAULT_PATH = Path("/etc/gazelle.toml")


def find_config(given: Path | None = None, environ: Mapping[str, str] = os.environ) -> Path | None:
    """Return the file to read: `given` (-c), $GAZELLED_CONFIG, /etc/gazelle.toml if there is one; None: built-in."""
    if given is not None:
        return given
    if environ.get("GAZELLED_CONFIG"):
        return Path(environ["GAZELLED_CONFIG"])
    return DEFAULT_PATH if DEFAULT_PATH.exists() else None


@dataclass(frozen=True)
class Uplink:
    """An uplink chosen on the command line: --nic, --past-firewall."""

    interface: str
    past_firewall: bool = False


def load_config(given: Path | None = None, instance: str | None = None, uplink: Uplink | None = None) -> Config:
    """Read the configuration a command is to use; `instance` (-i) and `uplink` (--nic) outrank the file's.

    Raises ConfigError with everything that is wrong with the file, each as "file:line: key: what, allowed, hint".
    """
    path = find_config(given)
    if path is None:
        config = BUILT_IN
    else:
        from gazelled.configuration.model import (
            parse_config,  # pydantic is slow to load, and the built-in needs none of it
        )

        config = parse_config(_read(path), str(path))
    if uplink is not None:
        port = replace(
            config.port,
            driver="tap",
            device=(),
            host_driver=None,
            mtu=None,
            uplink=uplink.interface,
            past_firewall=uplink.past_firewall,
        )
        config = replace(config, port=port, network=NetworkConfig(host_addr=AUTO))
    return config if instance is None else replace(config, stack=replace(config.stack, instance=instance))


def _read(path: Path) -> str:
    try:
        return path.read_bytes().decode()
    except OSError as error:
        raise ConfigError(
            [f"{path}: {error.strerror}"],
            hint="the search order is -c FILE, $GAZELLED_CONFIG, /etc/gazelle.toml, then the built-in default",
        ) from error
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise ConfigError([f"{path}:{line}: not UTF-8 (byte 0x{error.object[error.start]:02x})"]) from error
