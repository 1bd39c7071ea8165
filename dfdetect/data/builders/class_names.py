"""Class names of annotation files: heads, other things, and misspellings of both."""

import dataclasses
import difflib
import re

# Similarity (of `difflib`) from which a name is taken for a misspelling of another:
# "haed" and "heads" are like "head", "helmet" and "person" are not.
_NEAR = 0.75


@dataclasses.dataclass(frozen=True)
class ClassNames:
    """Which classes of an annotation are heads and which are known not to be.

    Attributes:
        heads: Names that count as heads, exactly as the files spell them.
        others: Names of other things, whose objects are ignored.

    Raises:
        ValueError: No name of a head, an empty name, or one that is in both.
    """

    heads: tuple[str, ...] = ("head",)
    others: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        both = sorted(set(self.heads) & set(self.others))
        if not self.heads or not all((*self.heads, *self.others)) or both:
            raise ValueError(
                "head_names must be one name or more, none of them empty or in "
                f"other_names, got {list(self.heads)} and {list(self.others)}."
            )

    def nearest(self, name: str) -> str:
        """Returns the known name that is most like `name`."""
        known = (*self.heads, *self.others)
        return max(known, key=lambda other: _likeness(name, other))

    def is_near_head(self, name: str) -> bool:
        """Whether `name` looks like that of a head, wrongly spelled or within others.

        A few letters that differ ("Head", "haed", "heads") and a word more ("human
        head") are near.
        """
        words = [name, *re.findall(r"[^\W_]+", name)]
        return any(is_near(word, head) for word in words for head in self.heads)

    def with_others(self, names: list[str]) -> "ClassNames":
        """Also knows these classes, which a file declares, unless near to a head."""
        declared = [
            name
            for name in names
            if name and name not in self.heads and not self.is_near_head(name)
        ]
        others = tuple(dict.fromkeys((*self.others, *declared)))
        return dataclasses.replace(self, others=others)


def is_near(name: str, known: str) -> bool:
    """Whether one name is like another, whatever the case of their letters."""
    return _likeness(name, known) >= _NEAR


def _likeness(name: str, known: str) -> float:
    pair = name.casefold().strip(), known.casefold()
    return difflib.SequenceMatcher(None, *pair).ratio()
