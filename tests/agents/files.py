"""Changing files of this project as an attacker would, with a correct checksum."""

import json

from safetensors import safe_open
from safetensors.torch import save_file

from storage.tensor_file import checksum


def rewrite(path, change, *, drop=(), replace=None):
    """Change the description in a file, remove or replace tensors, and update the checksum."""
    with safe_open(path, "pt") as file:
        description = json.loads(file.metadata()["doomgrad"])
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    change(description)
    kept = {name: tensor for name, tensor in tensors.items() if name not in drop}
    kept |= replace or {}
    text = json.dumps(description)
    save_file(kept, path, {"doomgrad": text, "sha256": checksum(kept, text)})
    return path
