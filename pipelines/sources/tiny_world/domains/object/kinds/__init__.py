"""The classes of things, a file for each family of them."""

from pipelines.sources.tiny_world.domains.object.kind import Kind
from pipelines.sources.tiny_world.domains.object.kinds import (
    buildings,
    furniture,
    instruments,
    plants,
    tableware,
    toys,
    vehicles,
    wear,
)

KINDS: dict[str, Kind] = {
    **tableware.KINDS, **furniture.KINDS, **buildings.KINDS, **vehicles.KINDS, **wear.KINDS, **instruments.KINDS,
    **toys.KINDS, **plants.KINDS,
}  # fmt: skip
