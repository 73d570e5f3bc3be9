"""The table of docs/mutants.md: what was seen to kill each mutant. `python -m tests.mutants --write`."""
from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace

from tests.mutants.catalog import MUTANTS, Mutant
from tests.mutants.plant import ROOT

DOCUMENT = ROOT / "docs/mutants.md"
BEGIN, END = "<!-- by `make mutants ARGS=--write` -->\n", "<!-- end -->\n"
HEAD = ("| # | room | rule | mutant | killed by | s | random seeds |\n"
        "|---|---|---|---|---|---|---|\n")
ROW = re.compile(r"^\| (\d+) \|.*$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Verdict:
    """What came of one mutant."""

    mutant: Mutant
    killed_by: str = ""        # the first of its checks that failed, or a seed
    seconds: float = 0.0       # until then, from the start of the first check
    seeds: str = ""            # how many random seeds it took, or that none of so many did

    def row(self) -> str:
        """A line of the table."""
        mutant, by = self.mutant, self.killed_by.removeprefix("tests/")
        return " | ".join(("", str(mutant.number), mutant.room, mutant.rule, mutant.name,
                           f"`{by}`" if by else "SURVIVED", f"{self.seconds:.1f}", self.seeds, "")).strip()


def rows(text: str) -> dict[int, str]:
    """The lines of the table in a document, by the mutant's number."""
    return {int(found[1]): found[0] for found in ROW.finditer(_between(text))}


def write(verdicts: Iterable[Verdict], summary: str) -> None:
    """Put these lines in the place of older ones; lines of mutants that are no more go. Without random
    seeds what they came to before stays. `summary` stands in front; empty: the older one stays."""
    text = DOCUMENT.read_text()
    old = _between(text)
    known = rows(text)
    for verdict in verdicts:
        number = verdict.mutant.number
        seeds = verdict.seeds or known.get(number, "| |").split("|")[-2].strip()
        known[number] = replace(verdict, seeds=seeds).row()
    lines = [known[mutant.number] for mutant in MUTANTS if mutant.number in known]
    table = (summary or old.partition("\n\n")[0].strip()) + "\n\n" + HEAD + "\n".join(lines) + "\n"
    DOCUMENT.write_text(text.replace(old, table))


def _between(text: str) -> str:
    return text.partition(BEGIN)[2].partition(END)[0]
