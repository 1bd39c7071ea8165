"""Accounts of the files that a data set was built from."""

import collections
import dataclasses
import hashlib
import json

_MAX_LISTED = 100  # Names of skipped files kept in the metadata.


@dataclasses.dataclass
class Account:
    """Counts, skipped files and a fingerprint; accounts add up in any order.

    Attributes:
        strict: Whether a file that cannot be used stops the build.
        counts: Number of each kind of event.
        skipped: Lines of "file: reason", the first hundred in alphabetical order;
            `n_skipped` counts all.
        fingerprint: Sum of the digests of what went in, modulo 2**256 (AdHash; Bellare
            and Micciancio, A New Paradigm for Collision-free Hashing, EUROCRYPT 1997).
    """

    strict: bool = False
    counts: collections.Counter[str] = dataclasses.field(
        default_factory=collections.Counter
    )
    skipped: list[str] = dataclasses.field(default_factory=list)
    fingerprint: int = 0

    def skip(self, name: str, reason: str) -> None:
        """Counts a file that gives no record.

        Raises:
            ValueError: The build is strict.
        """
        line = f"{name}: {reason}"
        if self.strict:
            raise ValueError(line)
        self.counts["n_skipped"] += 1
        self.skipped = sorted([*self.skipped, line])[:_MAX_LISTED]

    def take(self, *parts: object) -> None:
        """Adds what went into a record to the fingerprint: bytes, and names or numbers.

        Each part is hashed by itself, so that none can run into the next.
        """
        digest = hashlib.sha256()
        for part in parts:
            data = part if isinstance(part, bytes) else str(part).encode()
            digest.update(hashlib.sha256(data).digest())
        self._add(int.from_bytes(digest.digest(), "big"))

    def add(self, other: "Account") -> None:
        """Adds another account to this one."""
        self.counts.update(other.counts)
        self.skipped = sorted(self.skipped + other.skipped)[:_MAX_LISTED]
        self._add(other.fingerprint)

    def to_json(self) -> str:
        """The account as text, for `from_json`."""
        return json.dumps(vars(self))

    @classmethod
    def from_json(cls, text: str) -> "Account":
        """The account that `to_json` wrote."""
        fields = json.loads(text)
        return cls(**fields | {"counts": collections.Counter(fields["counts"])})

    def _add(self, fingerprint: int) -> None:
        self.fingerprint = (self.fingerprint + fingerprint) % 2**256
