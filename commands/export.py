"""`evaluate.py export`: write a policy as one ONNX file."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from pathlib import Path

from commands.options import CONSOLE, ReadingOptions, RunPath
from evaluation.printing import print_line


@dataclass(frozen=True, kw_only=True)
class ExportOptions(ReadingOptions):
    """Write a policy as one file that other programs can run.

    The outputs of the file are compared with those of the policy first.
    """

    run: RunPath
    """A run folder (its best policy is exported) or a policy file."""
    onnx: Path | None = None
    """The .onnx file to write. None: policy.onnx in the run folder."""

    def __post_init__(self) -> None:
        """Check the file's name."""
        if self.onnx is not None and (self.onnx.suffix != ".onnx" or self.onnx.is_dir()):
            raise ValueError(f"--onnx {self.onnx}: name a file that ends in .onnx")


def run(options: ExportOptions) -> None:
    """Write a policy as ONNX, for the environment that it is scored in."""
    from deploy.onnx import BATCH_SIZES, save_onnx
    from envs.doom.cfg import game_spec, split_file
    from evaluation.entries import locate, output_folder
    from evaluation.protocol import named_env, native
    from storage.run_folder import ONNX, find_policy

    file, folder = find_policy(locate(options.run), trust=options.trust)
    # The environment is only written down: nothing is imported for it, and files of the user's own
    # need not be here.
    config = replace(named_env(file.env, options.run).whole_games(), skill=None)
    if split_file(config.env) is None and game_spec(config.env) is not None:
        config = native(file, options.run, trust=True)
    out = options.onnx or output_folder(options.run, folder) / ONNX
    with CONSOLE.status(f"writing {out}"):
        found = save_onnx(out, file, env=asdict(config))
    print_line(f"{out}: {out.stat().st_size:,} bytes")
    sizes = ", ".join(map(str, BATCH_SIZES))
    largest = ", ".join(f"{name} {difference:.1e}" for name, difference in found.items())
    print_line(f"largest difference from PyTorch, at batches of {sizes}: {largest}")
