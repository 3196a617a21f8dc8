"""`evaluate.py attack`: how easily policies are fooled by attacks, noise and natural shifts."""

from __future__ import annotations

import functools
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from commands.commandline import UsageError
from commands.options import CONSOLE, ScoringOptions, check_folder
from evaluation.printing import print_line
from storage.files import check_writable

if TYPE_CHECKING:
    from evaluation.entries import Contestant, Entry
    from evaluation.robustness.measure import Cell, Measured, Plan
    from evaluation.robustness.report import Row

NOTHING = "none"
OUT = Path("runs/attack")
"""The folder for table and picture if there are several policies."""


@dataclass(frozen=True, kw_only=True)
class AttackOptions(ScoringOptions):
    """Play the same episodes under attacks, noise and natural shifts, beside controls.

    Results are kept as they come: the same command continues after an interruption.
    """

    runs: Annotated[
        tyro.conf.Positional[tuple[str, ...]],
        tyro.conf.arg(metavar="RUN [RUN ...]", help_behavior_hint="(required)"),
    ]
    """Run folders, policy files, or patterns for them, of one environment."""
    episodes: int = 30
    """Number of episodes under each attack."""
    greedy: bool = False
    """Take the most likely actions; by default, actions are sampled as in training."""
    attacks: tuple[str, ...] = ()
    """Attacks: uniform_noise, sign_noise, fgsm, pgd10, pgd40, pgd10_value, pgd10_memory, search,
    transfer; or none. By default, all that apply."""
    epsilons: tuple[float, ...] = (0.5, 1.0, 2.0, 3.0, 8.0)
    """Largest changes of a pixel, in 255ths of the brightest one."""
    shifts: tuple[str, ...] = ()
    """Natural shifts: darker, brighter, gamma, tint, palette, noise, blur, texture, hud, foreign;
    or none. By default, all that apply."""
    from_: Annotated[Path | None, tyro.conf.arg(name="from")] = None
    """Another policy, such as one of another seed, whose attack is transferred: a black box."""
    replay: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Also write a page that shows an episode under the last attack and the middle epsilon."""
    out: Path | None = None
    """The folder for table and picture. None: that of the run; runs/attack if there are several."""

    def __post_init__(self) -> None:
        """Check ranges."""
        super().__post_init__()
        if not self.runs:
            raise ValueError("name at least one run")
        for epsilon in self.epsilons:
            if not 0 <= epsilon <= 255:
                raise ValueError(f"epsilons must be between 0 and 255, got {epsilon:g}")
        if not self.epsilons and self.attacks != (NOTHING,):
            raise ValueError("epsilons must be at least one number, unless --attacks is none")
        if len(set(self.epsilons)) < len(self.epsilons):
            raise ValueError("epsilons lists a number twice")
        if "transfer" in self.attacks and self.from_ is None:
            raise ValueError("transfer needs a policy to transfer from; name one with --from RUN")
        if self.replay and self.attacks == (NOTHING,):
            raise ValueError("replay shows an attack; leave out --attacks none")
        if self.out is not None:
            check_folder(self.out)


def run(options: AttackOptions) -> None:
    """Attack policies, and write a table and a picture."""
    from evaluation.compare import by_env
    from evaluation.entries import find_entries
    from evaluation.errors import EvaluationError
    from evaluation.report.layout import rendered
    from evaluation.robustness.measure import check_attackable
    from evaluation.robustness.report import markdown, picture
    from storage.files import write_atomically, write_json
    from storage.run_folder import ATTACK, ATTACK_PAGE, ATTACK_PICTURE, ATTACK_TABLE

    check_names(options)
    options.check_writable()
    groups = by_env(find_entries(options.runs, trust=options.trust))
    if len(groups) > 1:
        names = ", ".join(entries[0].config.env for entries in groups)
        raise EvaluationError(f"name policies of one environment, not of {names}")
    (entries,) = groups
    contestants = [contestant for entry in entries for contestant in entry.contestants]
    plans = {contestant.path: plan_of(options, contestant) for contestant in contestants}
    for contestant in contestants:
        check_attackable(contestant, plans[contestant.path])
    out = options.out or (folder_of(contestants[0]) if len(contestants) == 1 else OUT)
    for folder in (out, *map(folder_of, contestants)):
        check_writable(folder)
    rows = [row for entry in entries for row in measured_rows(entry, plans)]
    print_rows(rows)
    config, plan = entries[0].config, plans[contestants[0].path]
    mode = "greedy" if options.greedy else "sampled"
    title = f"{config.env}: native return under attack, {mode} actions"
    write_atomically(out / ATTACK_PICTURE, rendered(picture(rows, title), "png"))
    text = markdown(rows, config, plan.protocol, mode, ATTACK_PICTURE)
    write_atomically(out / ATTACK_TABLE, text.encode())
    if options.json:
        rules = {"env": config.env, "mode": mode, "protocol": plan.protocol.facts(config)}
        write_json(options.json, {**rules, "rows": [row.as_dict() for row in rows]})
    print_line(f"written to {out}: {ATTACK_TABLE}, {ATTACK_PICTURE}; each policy's {ATTACK}")
    for contestant in contestants if options.replay else ():
        from evaluation.robustness.film import attacked_page

        plan = plans[contestant.path]
        shown = [cell for cell in plan.cells(contestant) if cell.name == plan.attacks[-1]]
        cell = shown[len(shown) // 2]
        content, total = attacked_page(contestant, plan, cell)
        page = folder_of(contestant) / ATTACK_PAGE
        write_atomically(page, content.encode())
        print_line(f"{page}: {cell.key}/255, return {total:,.2f}")


def check_names(options: AttackOptions) -> None:
    """Check the names of attacks and shifts.

    Raises:
        UsageError: If there is no such one.
    """
    from evaluation.robustness.attacker import ATTACKS
    from evaluation.robustness.shifts import SHIFTS

    known: dict[str, Collection[str]] = {"attacks": ATTACKS, "shifts": SHIFTS}
    for option, names in known.items():
        chosen: tuple[str, ...] = getattr(options, option)
        for name in chosen:
            if name not in names and chosen != (NOTHING,):
                raise UsageError(
                    f"--{option}: there is no {name!r}; choose from {', '.join(names)}; or none"
                )


def plan_of(options: AttackOptions, contestant: Contestant) -> Plan:
    """Return what is measured of a policy: by default, all that applies to it."""
    from evaluation.entries import locate
    from evaluation.robustness.attacker import ATTACKS
    from evaluation.robustness.measure import Plan
    from evaluation.robustness.shifts import SHIFTS
    from storage.run_folder import find_policy

    source = None
    if options.from_ is not None:
        source, _ = find_policy(locate(options.from_), trust=options.trust)
    attacks = options.attacks or tuple(
        name
        for name, attack in ATTACKS.items()
        if (source or not attack.from_another)
        and (contestant.file.policy.is_recurrent or not attack.through_memory)
    )
    return Plan(
        protocol=options.protocol,
        greedy=options.greedy,
        attacks=() if attacks == (NOTHING,) else attacks,
        epsilons=tuple(sorted(options.epsilons)),
        shifts=() if options.shifts == (NOTHING,) else options.shifts or tuple(SHIFTS),
        source=source,
    )


def folder_of(contestant: Contestant) -> Path:
    """Return the folder for results about a policy."""
    from evaluation.entries import locate, output_folder
    from storage.run_folder import RunFolder

    place = locate(contestant.path)
    return output_folder(contestant.path, RunFolder(place.parent if place.is_file() else place))


def measured_rows(entry: Entry, plans: Mapping[Path, Plan]) -> list[Row]:
    """Measure all policies of an entry, and return its rows of the table.

    Args:
        entry: the entry.
        plans: what is measured, by the path of each policy.
    """
    from evaluation.robustness.measure import Store, about, measure
    from evaluation.robustness.report import rows_of
    from storage.files import remove_leftovers
    from storage.run_folder import ATTACK

    found: dict[str, tuple[Cell, list[Measured]]] = {}
    for contestant in entry.contestants:
        name, plan, folder = str(contestant.path), plans[contestant.path], folder_of(contestant)
        remove_leftovers(folder)
        store = Store.open(folder / ATTACK, about(contestant, plan))
        finished = sum(plan.key(cell) in store.cells for cell in plan.cells(contestant))
        if finished:
            print_line(f"{name}: {finished} results are kept from an earlier command")
        with CONSOLE.progress() as show:
            each = measure(
                contestant,
                plan,
                store,
                starts=functools.partial(show_cell, show, name),
                ends=functools.partial(print_measured, name),
            )
            for cell, measured in each:
                found.setdefault(cell.key, (cell, []))[1].append(measured)
    return rows_of(entry.name, found)


def show_cell(show: Callable[[str], None], name: str, cell: Cell) -> None:
    """Show which cell is played."""
    show(f"{name}: {cell.key}")


def print_measured(name: str, cell: Cell, measured: Measured) -> None:
    """Print the mean return of a cell that was played."""
    mean = sum(measured.returns) / len(measured.returns)
    print_line(f"{name}: {cell.key}: {mean:,.2f} ({measured.seconds:.0f} s)")


def print_rows(rows: Sequence[Row]) -> None:
    """Print the table, without the columns for which a terminal has no room."""
    from rich.table import Table

    from evaluation.robustness.report import COLUMNS, NOTES, recoveries, table

    chosen = ["change", "epsilon", "mean", "95 % interval", "kept", "decisions"]
    if len({row.entry for row in rows}) > 1:
        chosen = ["policy", *chosen]
    shown = Table()
    for column in chosen:
        is_name = column in ("policy", "change")
        shown.add_column(column, justify="left" if is_name else "right", overflow="fold")
    for cells in table(rows):
        shown.add_row(*(cells[COLUMNS.index(column)] for column in chosen))
    CONSOLE.print(shown)
    for line in (*NOTES[:-1], *recoveries(rows)):
        print_line(line)
