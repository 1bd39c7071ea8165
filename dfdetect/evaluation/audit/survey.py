"""The survey of a data set: some hundred bytes of each record, no pixels."""

import dataclasses

import numpy as np


@dataclasses.dataclass(frozen=True)
class Survey:
    """A survey of N records.

    Attributes:
        splits: `[N]`, names of their splits.
        filenames: `[N]`, `image/filename`.
        labels: `[N]`, see `labels`; None where the data set has none.
        identities: Names that must stay in one split, by kind: `[N]` lists of them.
        hashes: uint8 `[N, 32]`, see `near_duplicates`; `[0, 32]` without hashes.
        comparable: bool `[N]`, whether an image has enough in it for its hash to mean
            anything; `[0]` without hashes.
        features: float32 `[N, F]` of `metadata_baseline.FEATURES`.
        fields: Further scalars of the records, `[N]` each, see
            `records.list_further_fields`.
    """

    splits: np.ndarray
    filenames: list[str]
    labels: np.ndarray | None
    identities: dict[str, list[list[str]]]
    hashes: np.ndarray
    comparable: np.ndarray
    features: np.ndarray
    fields: dict[str, np.ndarray] = dataclasses.field(default_factory=dict)

    @property
    def truths(self) -> np.ndarray:
        """`[N]`, the labels of a data set that has them.

        Raises:
            ValueError: It has none.
        """
        if self.labels is None:
            raise ValueError("The data set has no labels.")
        return self.labels

    @property
    def groups(self) -> np.ndarray:
        """`[N]`, the group of each; without one, a record is a group by itself."""
        named = self.identities.get("group")
        if named is None:
            return np.arange(len(self.filenames)).astype(str)
        return np.array([names[0] if names else "" for names in named])

    def take(self, wanted: np.ndarray) -> "Survey":
        """Returns the survey of the records where `wanted` `[N]` is true."""
        return Survey(
            self.splits[wanted],
            np.array(self.filenames)[wanted].tolist(),
            None if self.labels is None else self.labels[wanted],
            {
                kind: [names for names, keep in zip(found, wanted, strict=True) if keep]
                for kind, found in self.identities.items()
            },
            self.hashes[wanted] if len(self.hashes) else self.hashes,
            self.comparable[wanted] if len(self.comparable) else self.comparable,
            self.features[wanted],
            {name: values[wanted] for name, values in self.fields.items()},
        )
