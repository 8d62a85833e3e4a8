"""The round trip of an empty cell: from sending it until its reply and its idle are here."""

from __future__ import annotations

from .ground import ground
from .kernels import kernel
from .results import Goal, Row, Table

NODES = 8
ROUNDS = 200
WARM_UP = 20
PLAIN = "plain"
CELLS = {
    "at home": "pass",
    "one node, Python": "%%on box[0]\npass",
    "one node, bash": "%%on box[0] --lang bash\n:",
    f"{NODES} nodes at once, Python": "%%on box\npass",
    f"{NODES} nodes at once, bash": "%%on box --lang bash\n:",
}
"""{what: cell}"""


def measure(quick: bool) -> Table:
    """Every kind of cell in turn, `ROUNDS` times, beside the same in a plain ipykernel."""
    rounds = 10 if quick else ROUNDS
    times: dict[str, list[float]] = {name: [] for name in (PLAIN, *CELLS)}
    with ground() as place, place.up(NODES) as folder, kernel("python3", folder) as plain, kernel("wardian", folder) as wardian:
        for number in range(-WARM_UP, rounds):
            measured = {PLAIN: plain.time("pass"), **{what: wardian.time(code) for what, code in CELLS.items()}}
            if number >= 0:
                for what, seconds in measured.items():
                    times[what].append(seconds)
    goals = {"at home": Goal(1.2, ratio=True), "one node, Python": Goal(1.5, ratio=True), "one node, bash": Goal(0.003)}
    rows = [Row(what, "ms", times[what], "ipykernel", times[PLAIN], goals.get(what)) for what in CELLS]
    return Table("cells", f"an empty cell there and back, {rounds} rounds in turn", rows=rows)
