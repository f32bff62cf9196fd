"""YAML from strangers, with the line of every key: bounded size, no exploding aliases, no duplicate keys."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml
from yaml.composer import ComposerError

from ctxpeft.errors import SpecError
from ctxpeft.spec.document import Document, Path_, dotted, one_line

__all__ = ["Document", "dotted", "dump_yaml", "one_line", "parse_yaml", "read_yaml"]

LONGEST_NAME = 400  # characters of a path in a message
MAX_BYTES = 1 << 20
MAX_NODES = 20_000
MAX_DEPTH = 60
_DECIDED_HERE = ("bool", "float", "int", "timestamp")


class _Loader(yaml.SafeLoader):
    """YAML 1.2 scalars: `3e-3` is a number; `on`, `no`, `010`, `1:30` and dates are text. No tags."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.depth = self.count = 0

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        """As the base class, refusing tags, depth and number while the document is still being read."""
        event = self.peek_event()  # type: ignore[no-untyped-call]
        if getattr(event, "tag", None) is not None:
            raise ComposerError(
                None, None, f"tags such as {event.tag} have no place in a spec", event.start_mark
            )
        self.count += 1
        if self.count > MAX_NODES:
            raise ComposerError(None, None, f"more than {MAX_NODES:,} values", event.start_mark)
        if self.depth > MAX_DEPTH:
            raise ComposerError(None, None, f"nested more than {MAX_DEPTH} levels deep", event.start_mark)
        self.depth += 1
        try:
            return super().compose_node(parent, index)
        finally:
            self.depth -= 1


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in pairs if tag.rsplit(":", 1)[-1] not in _DECIDED_HERE]
    for first, pairs in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_SCALARS = (
    ("bool", r"^(?:true|True|TRUE|false|False|FALSE)$", "tTfF"),
    ("int", r"^(?:[-+]?(?:0|[1-9][0-9_]*)|0x[0-9a-fA-F]+)$", "-+0123456789"),
    (
        "float",
        r"^[-+]?(?:[0-9][0-9_]*\.[0-9_]*(?:[eE][-+]?[0-9]+)?|[0-9]+[eE][-+]?[0-9]+|\.[0-9]+(?:[eE][-+]?[0-9]+)?"
        r"|\.inf|\.Inf|\.INF)$|^\.(?:nan|NaN|NAN)$",
        "-+0123456789.",
    ),
)


class _Dumper(yaml.SafeDumper):
    """Quotes whatever YAML 1.1 or this reader would not read back as text."""

    def represent_text(self, text: str) -> yaml.ScalarNode:
        """Text with control characters in double quotes: the other styles fold some of them into spaces."""
        style = '"' if one_line(text) != text else None
        return self.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Dumper.add_representer(str, _Dumper.represent_text)
for _name, _pattern, _first in _SCALARS:
    for _class in (_Loader, _Dumper):
        _class.add_implicit_resolver(f"tag:yaml.org,2002:{_name}", re.compile(_pattern), list(_first))


def dump_yaml(data: Any) -> str:
    """Plain data as YAML, keys in order; `parse_yaml` reads it back."""
    text: str = yaml.dump(data, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=100)
    return text


def read_yaml(path: Path) -> Document:
    """Read a YAML file a stranger may have written. Raises SpecError in one sentence."""
    name = one_line(str(path))
    if len(name) > LONGEST_NAME:
        name = f"...{name[-LONGEST_NAME:]}"
    try:
        with path.open("rb") as file:
            raw = file.read(MAX_BYTES + 1)
    except FileNotFoundError:
        raise SpecError(f"{name}: no such file") from None
    except IsADirectoryError:
        raise SpecError(f"{name}: is a directory; expected a YAML file") from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise SpecError(f"{name}: cannot be read ({reason.lower()})") from None
    if len(raw) > MAX_BYTES:
        raise SpecError(f"{name}: too large; a spec file has at most {MAX_BYTES:,} bytes")
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise SpecError(f"{name}: not UTF-8 text (byte {error.start}); expected a YAML file") from None
    return parse_yaml(text, name)


def parse_yaml(text: str, name: str) -> Document:
    """Parse YAML text; `name` is what messages call it. Raises SpecError in one sentence."""
    try:
        loader = _Loader(text)
        try:
            node = loader.get_single_node()
            lines: dict[Path_, int] = {}
            if node is not None:
                _measure(node, name)
                _walk(node, (), lines, name)
            data = None if node is None else loader.construct_document(node)
        finally:
            loader.dispose()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f"{name}:{mark.line + 1}" if mark else name
        raise SpecError(
            one_line(f"{where}: not valid YAML: {_told(error.problem or error.context)}")
        ) from None
    except yaml.reader.ReaderError as error:
        raise SpecError(f"{name}: not text: {error.reason} at position {error.position}") from None
    except RecursionError:
        raise SpecError(f"{name}: nested too deeply; a spec has at most {MAX_DEPTH} levels") from None
    except (ValueError, yaml.YAMLError) as error:
        raise SpecError(one_line(f"{name}: not valid YAML: {str(error).splitlines()[0]}")) from None
    return Document(data, lines, name)


def _told(problem: str | None) -> str:
    """The parser's words, made plainer where they are obscure."""
    if problem and "'\\t'" in problem:
        return "a tab where YAML allows only spaces; indent with spaces"
    return problem or "it cannot be parsed"


def _measure(root: yaml.Node, name: str) -> None:
    """Refuse documents whose aliases expand to too many nodes, or contain themselves."""
    sizes: dict[int, int] = {}
    open_nodes: set[int] = set()

    def size(node: yaml.Node, depth: int) -> int:
        key, line = id(node), node.start_mark.line + 1
        if key in open_nodes:
            raise SpecError(f"{name}:{line}: an alias contains itself")
        if depth > MAX_DEPTH:
            raise SpecError(f"{name}:{line}: nested too deeply; a spec has at most {MAX_DEPTH} levels")
        if key not in sizes:
            open_nodes.add(key)
            children: list[yaml.Node] = []
            if isinstance(node, yaml.MappingNode):
                children = [part for pair in node.value for part in pair]
            elif isinstance(node, yaml.SequenceNode):
                children = list(node.value)
            sizes[key] = 1 + sum(size(child, depth + 1) for child in children)
            open_nodes.discard(key)
        if sizes[key] > MAX_NODES:
            raise SpecError(
                f"{name}: its aliases expand to more than {MAX_NODES:,} values; write the spec out"
            )
        return sizes[key]

    size(root, 0)


def _walk(node: yaml.Node, path: Path_, lines: dict[Path_, int], name: str) -> None:
    """Note the line of every key; refuse duplicates and keys that are not plain text."""
    lines.setdefault(path, node.start_mark.line + 1)
    if isinstance(node, yaml.MappingNode):
        seen: set[str] = set()
        for key, value in node.value:
            line = key.start_mark.line + 1
            if not isinstance(key, yaml.ScalarNode):
                raise SpecError(f"{name}:{line}: a key must be plain text")
            if key.value in seen:
                raise SpecError(one_line(f"{name}:{line}: the key '{key.value}' is given twice"))
            seen.add(key.value)
            lines[(*path, key.value)] = line
            _walk(value, (*path, key.value), lines, name)
    elif isinstance(node, yaml.SequenceNode):
        for index, value in enumerate(node.value):
            _walk(value, (*path, index), lines, name)
