"""The little of each record that an audit needs: some hundred bytes, no pixels."""

import dataclasses

import numpy as np

# Fields that name what must not stand in two splits, and what they name. A clip or an
# actor is the same whether the scene was taken or the face.
PROVENANCE = {
    "group": "group",
    "movie": "movie",
    "target_id": "source video or actor",
    "source_id": "source video or actor",
}


@dataclasses.dataclass(frozen=True)
class Survey:
    """What was seen of N records.

    Attributes:
        splits: `[N]`, names of their splits.
        filenames: `[N]`, `image/filename`.
        labels: `[N]`, see `labels`; None where the data set has none.
        identities: What each record must not be parted from: by kind, `[N]` lists.
        hashes: uint8 `[N, 32]`, see `near_duplicates`.
        comparable: bool `[N]`, whether a picture has enough in it for its hash to mean
            anything.
        features: float32 `[N, F]` of `no_pixels.FEATURES`.
    """

    splits: np.ndarray
    filenames: list[str]
    labels: np.ndarray | None
    identities: dict[str, list[list[str]]]
    hashes: np.ndarray
    comparable: np.ndarray
    features: np.ndarray
