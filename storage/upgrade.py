"""Reading what older versions wrote: files of format 3, and run folders with flat configuration.

`upgraded_config`, `upgraded_perception` and `upgraded_tensor_name` convert what they find; files
themselves are left as they are.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

# Where the modules of a policy were in format 3.
_RENAMED = (
    (re.compile(r"^perception\.encoders\.([^.]+)\.0\."), r"perception.encoders.\1.decoder."),
    (re.compile(r"^perception\.encoders\.([^.]+)\.1\."), r"perception.encoders.\1.encoder."),
    (
        re.compile(r"^perception\.encoders\.([^.]+)\.layers\."),
        r"perception.encoders.\1.encoder.layers.",
    ),
    (re.compile(r"^perception\.normalizers\.([^.]+)\."), r"perception.encoders.\1.normalizer."),
)
# In format 3, one dictionary held the layer sizes of all encoders.
_ENCODER_FIELDS = {
    "nature": {
        "conv_channels": "conv_channels",
        "conv_strides": "conv_strides",
        "features": "features",
    },
    "impala": {"impala_channels": "impala_channels", "features": "features"},
    "mlp": {"hidden_sizes": "mlp_sizes"},
}


def upgraded_tensor_name(name: str) -> str:
    """Return the present name of a policy's tensor in format 3."""
    for pattern, replacement in _RENAMED:
        if pattern.match(name):
            return pattern.sub(replacement, name)
    return name


def upgraded_perception(old: Mapping[str, Any]) -> dict[str, Any]:
    """Return the present form of a perception's description in format 3.

    Raises:
        LookupError: If it is not one.
    """
    layers = dict(old["layers"])
    fields = _ENCODER_FIELDS[old["encoder"]]
    memory: dict[str, Any] = {"name": old["memory"]}
    if old["memory"] != "none":
        memory["memory_size"] = old["memory_size"]
    return {
        "encoder": {
            "name": old["encoder"],
            **{new: layers[name] for name, new in fields.items() if name in layers},
        },
        "memory": memory,
        "vectors": {name: layers[name] for name in ("hidden_sizes",) if name in layers},
    }


def upgraded_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the present form of the configuration in an older run folder.

    Raises:
        LookupError: If it is not one.
    """
    if "learning" not in config:
        return dict(config)
    new = {name: value for name, value in config.items() if name not in ("learning", "agent")}
    return {
        **new,
        "perception": upgraded_perception(config["perception"]),
        "agent": {"name": config["agent"], **config["learning"]},
        "objectives": {},
    }
