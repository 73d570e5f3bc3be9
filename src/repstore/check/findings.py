"""What a check of a store has to say: findings, each with its place, and a verdict.

  F1 a check that did not get to its end never calls anything clean
  F2 findings are counted all, kept up to FINDINGS_MAX
"""
from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from repstore import config


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is not as it must be. `kind` is one of KINDS."""

    kind: str
    where: str
    expected: str
    found: str

    def __str__(self) -> str:
        return f"{self.kind}: {self.where}: expected {self.expected}, found {self.found}"


# what each kind means for the data
KINDS = {
    "superblock": "a copy of the superblock is damaged; two of four carry the store",
    "root": "a copy of the checkpoint root is damaged; one carries the store",
    "page": "a page of metadata is damaged: the blocks of a map page are lost here",
    "log": "the log has a hole below what was durable: writes are missing here",
    "pointer": "a map points to where no block can be; outside of the segments, its page is lost here",
    "owner": "two map entries point to one block",
    "live": "a segment counts other blocks as living than the maps do",
    "record": "no record in the log says what a map entry does",
    "data": "a block is not what was written",
    "lost": "no copy could give this block: it is an error until it is written anew",
}


@dataclass
class Report:
    """Everything a check found out. `checked` counts what was looked at."""

    store: str
    complete: bool = False
    findings: list[Finding] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)
    checked: Counter[str] = field(default_factory=Counter)

    @property
    def verdict(self) -> str:
        """`clean`, `findings`, or `interrupted` (F1)."""
        if not self.complete:
            return "interrupted"
        return "findings" if self.counts else "clean"

    def add(self, kind: str, where: str, expected: object, found: object) -> None:
        """Note a finding (F2)."""
        assert kind in KINDS, kind
        self.counts[kind] += 1
        if len(self.findings) < config.FINDINGS_MAX:
            self.findings.append(Finding(kind, where, str(expected), str(found)))

    def as_json(self) -> dict[str, object]:
        """What `--json` prints."""
        return {
            "store": self.store, "verdict": self.verdict, "complete": self.complete,
            "counts": dict(self.counts), "checked": dict(self.checked),
            "findings": [{"kind": finding.kind, "where": finding.where, "expected": finding.expected,
                          "found": finding.found} for finding in self.findings]}
