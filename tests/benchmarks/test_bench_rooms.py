"""What the count of the rooms sees, on code with known numbers."""

from benchmarks.rooms import Count, table

CODE = '''
class One:
    def look(self, a: int, b: int, *, c: bool, d: bool = True) -> "Iterator[tuple[int, str]]":
        """Return two."""

def many(a, b, c, d, e, f, g, h: bool | None = None) -> list[tuple[int, int, int]]:
    """Give three."""
    def inner(flag: bool) -> tuple[int, ...]:
        return ()
'''


def test_functions_are_counted_with_their_parameters_booleans_and_tuples() -> None:
    counted = Count()
    counted.add("one.py", CODE.replace('"Iterator[tuple[int, str]]"', "Iterator[tuple[int, str]]"))
    assert (counted.files, counted.functions, counted.many_parameters, counted.booleans) == (1, 3, 1, 2)
    assert counted.tuples == {2: 1, 3: 1} and counted.long_tuples == 1
    assert counted.verbs == {"Return": 1, "Give": 1}
    assert counted.longest_function == (4, "one.py: many")


def test_a_room_that_is_new_shows_nothing_before() -> None:
    after = Count()
    after.add("one.py", CODE)
    lines = list(table({}, {"media": after}))
    assert lines[2].startswith(f"| `media` | – → 1 | – → {len(CODE.splitlines())} |")
