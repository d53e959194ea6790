"""Tables with one row for each label set and one column for each query."""

from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY, dataclass
from string import ascii_uppercase

from grafana_foundation_sdk.builders import common, table
from grafana_foundation_sdk.models.common import TableCellHeight
from grafana_foundation_sdk.models.dashboard import DataTransformerConfig
from grafana_foundation_sdk.models.prometheus import PromQueryFormat

from grafana.fields import States, set_for, texts
from grafana.panels import NO_DATA, frame
from grafana.queries import now
from grafana.thresholds import Steps


@dataclass(frozen=True, slots=True)
class Column:
    """A column of numbers: its query, asked for one moment, and how the table shows them.

    `steps` colour the number, `states` the cell. With `bar`, a bar up to `highest` stands beside the number.
    With `change_of`, the query has the past of that column, and the table shows the difference.
    """

    title: str
    expression: str
    unit: str
    _: KW_ONLY
    decimals: int | None = None
    steps: Steps = ()
    bar: bool = False
    states: States | None = None
    highest: float | None = None
    width: int = 84
    interval: str = ""
    no_value: str = "-"
    no_zero: bool = False
    change_of: str = ""


@dataclass(frozen=True, slots=True)
class Key:
    """A column of a label's values, with the links of each cell."""

    label: str
    title: str
    links: Sequence[Mapping[str, object]] = ()
    _: KW_ONLY
    width: int | None = None
    colors: Mapping[str, str] | None = None
    hidden: bool = False


def rows(
    title: str,
    description: str,
    *,
    keys: Sequence[Key],
    columns: Sequence[Column],
    sort: str | Sequence[str],
    ascending: Sequence[str] = (),
    hidden: Sequence[str] = (),
    width: int = 24,
    height: int = 10,
    no_data: str = NO_DATA,
) -> table.Panel:
    """Merge columns that share the labels of `keys`, sorted by the columns `sort`.

    The largest comes first, or the smallest in the columns `ascending`. A state stands behind the first key,
    where a phone shows it.
    """
    names = [sort] if isinstance(sort, str) else sort
    order = [common.TableSortByFieldState().display_name(name).desc(name not in ascending) for name in names]
    queries = [
        now(column.expression, interval=column.interval).format(PromQueryFormat("table"))
        for column in columns
    ]
    values = ["Value"] if len(columns) == 1 else [f"Value #{ascii_uppercase[i]}" for i in range(len(columns))]
    states = {value: c.title for value, c in zip(values, columns, strict=True) if c.states}
    titles = {keys[0].label: keys[0].title} | states
    titles |= {key.label: key.title for key in keys}
    fields = dict(zip((c.title for c in columns), values, strict=True))
    changes = {c.title: (fields[c.change_of], fields[c.title]) for c in columns if c.change_of}
    titles |= {title if title in changes else field: title for title, field in fields.items()}
    panel = (
        frame(table.Panel(), title, description=description, queries=queries, width=width, height=height)
        .unit("short")
        .no_value(no_data)
        .cell_height(TableCellHeight("sm"))
        .sort_by(order)
        .with_transformation(DataTransformerConfig(id_val="merge", options={}))
    )
    for title, (now_field, past_field) in changes.items():
        panel = panel.with_transformation(_difference(title, now_field, past_field))
    panel = panel.with_transformation(
        DataTransformerConfig(
            id_val="organize",
            options={
                "excludeByName": dict.fromkeys(
                    ("Time", *hidden, *(past for _, past in changes.values())), True
                ),
                "indexByName": {name: index for index, name in enumerate(titles)},
                "renameByName": titles,
            },
        )
    )
    for key in keys:
        panel = set_for(panel, key.title, **_key_look(key))
    for column in columns:
        panel = set_for(panel, column.title, **_column_look(column))
    return panel


def _difference(title: str, now_field: str, past_field: str) -> DataTransformerConfig:
    operands = {
        side: {"matcher": {"id": "byName", "options": field}}
        for side, field in {"left": now_field, "right": past_field}.items()
    }
    return DataTransformerConfig(
        id_val="calculateField",
        options={"alias": title, "mode": "binary", "binary": {"operator": "-", **operands}},
    )


def _key_look(key: Key) -> dict[str, object]:
    look: dict[str, object] = {"noValue": "-"}
    if key.width:
        look["custom__width"] = key.width
    if key.links:
        look["links"] = list(key.links)
    if key.colors:
        options = {
            name: {"color": color, "index": index} for index, (name, color) in enumerate(key.colors.items())
        }
        look["mappings"] = [{"type": "value", "options": options}]
        look["custom__cellOptions"] = {"type": "color-background", "mode": "basic"}
    if key.hidden:
        look["custom__hideFrom"] = {"viz": True, "legend": False, "tooltip": False}
    return look


def _column_look(column: Column) -> dict[str, object]:
    look: dict[str, object] = {
        "unit": column.unit,
        "custom__width": column.width,
        "noValue": column.no_value,
    }
    if column.decimals is not None:
        look["decimals"] = column.decimals
    if column.steps:
        steps = [{"value": value, "color": color} for value, color in column.steps]
        look["thresholds"] = {"mode": "absolute", "steps": steps}
        look["color"] = {"mode": "thresholds"}
    elif column.bar:
        look["color"] = {"mode": "fixed", "fixedColor": "blue"}
    if column.change_of:
        nothing = {"match": "null+nan", "result": {"text": column.no_value, "index": 0}}
        look["mappings"] = [{"type": "special", "options": nothing}]
    if column.no_zero:
        look["mappings"] = [{"type": "value", "options": {"0": {"text": column.no_value, "index": 0}}}]
    if column.states:
        look["mappings"] = [texts(column.states)]
        look["custom__cellOptions"] = {"type": "color-background", "mode": "basic"}
    elif column.bar:
        look["custom__cellOptions"] = {"type": "gauge", "mode": "basic", "valueDisplayMode": "text"}
        look["min"] = 0
        # `fieldMinMax` scales the bars to this column; without it, the whole table sets their scale.
        look |= {"fieldMinMax": True} if column.highest is None else {"max": column.highest}
    elif column.steps:
        look["custom__cellOptions"] = {"type": "color-text"}
    return look
