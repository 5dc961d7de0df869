"""Names as people search for them: `*` stands for anything; without one it must be the whole name."""

from __future__ import annotations


class Conditions:
    """Conditions of a query and their values, joined by AND; a name that is empty is none."""

    def __init__(self, first: str) -> None:
        self._conditions = [first]
        self.values: dict[str, object] = {}

    def add(self, condition: str, **values: object) -> None:
        """Add a condition, with the values of its parameters."""
        self._conditions.append(condition)
        self.values.update(values)

    def add_name(self, column: str, word: str) -> None:
        """Ask for a name, if one is given."""
        if word:
            parameter = f"name_{len(self.values)}"
            is_pattern = "*" in word
            condition = f"{column} LIKE :{parameter} ESCAPE '!'" if is_pattern else f"{column} = :{parameter}"
            self.add(condition, **{parameter: _pattern(word) if is_pattern else word})

    def __str__(self) -> str:
        return " AND ".join(self._conditions)


def _pattern(word: str) -> str:
    for special in "!%_":
        word = word.replace(special, f"!{special}")
    return word.replace("*", "%")
