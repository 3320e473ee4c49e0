"""Names of rows that have none: after their file, which another file may be called, too."""

from deployments.backfill.rows import InvalidRow
from deployments.backfill.sources import SourceFile
from deployments.core.segments import Id


class NamedByPosition:
    """Which of several files of one name gave a media item segments without an id of their own.

    From another one of them they would get the same ids, and replace each other.
    """

    def __init__(self) -> None:
        self._owners: dict[tuple[str, str], str] = {}

    def claim(self, media_item_id: Id, file: SourceFile) -> None:
        """Raise InvalidRow if another file of the name has the media item."""
        owner = self._owners.setdefault((file.name, str(media_item_id)), file.url)
        if owner != file.url:
            raise InvalidRow(
                f"id: the row has none, and one made of the file's name {file.name} would be the "
                f"same for media item {media_item_id!r} in {owner}; add ids, or rename the file"
            )
