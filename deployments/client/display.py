"""What people see of answers in a terminal."""

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from deployments.client.printable import printable
from deployments.client.results import Context, Health, Hit, Moment, Segment, Stats

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.table import Table
    from rich.text import Text

MARK = "bold yellow"
TYPES = ("transcript", "frame", "clip")


def clock(seconds: float | None) -> str:
    """A time as mm:ss, from an hour on as h:mm:ss."""
    if seconds is None:
        return "--:--"
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes:02d}:{rest:02d}"


def span(start: float | None, end: float | None) -> str:
    """A stretch of time, as far as it is known."""
    if start is None and end is None:
        return "-"
    return clock(start) if end is None or end == start else f"{clock(start)}–{clock(end)}"


def hits_table(hits: Iterable[Hit]) -> "Table":
    """A row for each hit, and for the other hits of its group and the neighbours beneath it."""
    table = _table("similarity", "media item", "time", "text")
    for hit in hits:
        for before in hit.context.before if hit.context else ():
            table.add_row("", "", _time(before), _dim(before))
        table.add_row(
            f"{hit.similarity:.2f}", printable(hit.media_item_id), _time(hit), marked(hit)
        )
        for after in hit.context.after if hit.context else ():
            table.add_row("", "", _time(after), _dim(after))
        for other in hit.others:
            table.add_row(f"{other.similarity:.2f}", "", _time(other), marked(other))
    return table


def moments_table(moments: Iterable[Moment]) -> "Table":
    """A row for each moment, and one for each segment that was found in it."""
    table = _table("score", "media item", "time", "text")
    for moment in moments:
        at = span(moment.start_time, moment.end_time)
        table.add_row(
            f"{moment.score:.2f}", printable(moment.media_item_id), at, _around(moment.context)
        )
        for kind in TYPES:
            for hit in moment.evidence.get(kind, ()):
                table.add_row("", "", _time(hit), f"{kind}  {hit.similarity:.2f}  {_line(hit)}")
    return table


def marked(hit: Hit) -> "Text":
    """A hit's text with the words of the query marked."""
    from rich.text import Text

    text = Text(printable(hit.text or _image(hit)))
    for start, end in hit.highlights or ():
        text.stylize(MARK, start, end)
    return text


def stats_table(stats: Stats) -> "Table":
    """A row for each type of vectors."""
    models = {index.get("model_name", stats.model_name) for index in stats.indices.values()}
    shown = ("model",) if len(models) > 1 else ()
    table = _table("", "vectors", "searched by", "building", "recall@10", *shown)
    for kind in TYPES:
        index = stats.indices.get(kind, {})
        progress, recall = index.get("build_progress"), index.get("recall_at_10")
        table.add_row(
            kind,
            f"{getattr(stats, f'{kind}_vectors'):,}",
            printable(index.get("type", "-")),
            f"{progress:.0%}" if progress is not None else "yes" if index.get("building") else "-",
            "-" if recall is None else f"{recall:.3f}",
            *(printable(index.get("model_name", "")) for _ in shown),
        )
    table.add_row("total", f"{stats.total_vectors:,}")
    return table


def health_lines(health: Health) -> Sequence["RenderableType"]:
    """Whether the service works, with what, and if not, why."""
    from rich.text import Text

    lines: list[RenderableType] = [
        Text(printable(health.status), style="bold green" if health.healthy else "bold red")
    ]
    if health.reason:
        lines.append(Text(printable(health.reason)))
    if (stats := health.stats) is not None:
        replicas = "?" if stats.encoder_replicas is None else stats.encoder_replicas
        lines.append(
            Text(
                f"model {printable(stats.model_name)}, {stats.embedding_dimension} dimensions; "
                f"{replicas} encoder{'' if replicas == 1 else 's'}; last write "
                f"{printable(stats.last_write or 'before the index started')}"
            )
        )
        lines.append(stats_table(stats))
    return lines


def _table(*columns: str) -> "Table":
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    for name in columns:
        numbers = name in ("similarity", "score", "vectors", "recall@10", "building")
        table.add_column(
            name,
            justify="right" if numbers else "left",
            no_wrap=name == "time",
            ratio=1 if name == "text" else None,
        )
    return table


def _time(segment: Segment) -> str:
    return span(segment.start_time, segment.end_time)


def _dim(segment: Segment) -> "Text":
    from rich.text import Text

    return Text(printable(segment.text), style="dim")


def _image(segment: Segment) -> str:
    """What to show of a segment that is an image without a text."""
    return str(segment.metadata.get("image_path", ""))


def _around(context: Context | None) -> "Text":
    from rich.text import Text

    said = [] if context is None else [*context.before, *context.during, *context.after]
    return Text(printable(" ".join(segment.text for segment in said)), style="dim")


def _line(hit: Hit) -> str:
    return printable(" ".join((hit.text or _image(hit)).split()))
