"""Which area of the library a module belongs to, and which modules are held out for which split.

The areas follow the chapters of the Python Library Reference; a module the reference does not list, or whose
chapter is no single subject (runtime services, program frameworks), has no area and no row in the task.
A name covers the module and everything below it; the longest name that matches decides.
Modules of `test` and `validation` are also kept out of the pretraining text.
"""

from __future__ import annotations

from typing import Literal

Split = Literal["train", "validation", "test"]

SPLITS: tuple[Split, ...] = ("train", "validation", "test")

#: Areas that are labels of the task. `data` and `system` gather too many subjects to be told from a sentence; their
#: held-out modules stay out of the pretraining text all the same.
TASK_AREAS = ("text", "numbers", "files", "network", "threads", "testing", "graphics", "code")

#: Label of an area -> chapters of the Library Reference it stands for.
CHAPTERS: dict[str, str] = {
    "text": "Text Processing Services; Structured Markup Processing Tools; Codecs; Internationalization",
    "data": "Data Types; Functional Programming Modules",
    "numbers": "Numeric and Mathematical Modules",
    "files": "File and Directory Access; Data Compression and Archiving; Data Persistence; File Formats",
    "network": "Internet Protocols and Support; Internet Data Handling; Networking",
    "threads": "Concurrent Execution; Asynchronous I/O",
    "testing": "Development Tools; Debugging and Profiling",
    "graphics": "Graphical User Interfaces with Tk; Turtle graphics; Curses",
    "code": "Python Language Services; Importing Modules",
    "system": "Generic Operating System Services; Command-line parsing; Logging",
}

#: Label of an area -> split -> modules.
AREAS: dict[str, dict[Split, tuple[str, ...]]] = {
    "text": {
        "train": ("re", "difflib", "codecs", "encodings", "xml", "_markupbase"),
        "validation": ("string", "gettext", "locale", "xml.etree"),
        "test": ("textwrap", "xml.sax", "html", "shlex", "stringprep"),
    },
    "data": {
        "train": (
            "collections",
            "_collections_abc",
            "enum",
            "datetime",
            "_strptime",
            "dataclasses",
            "zoneinfo",
            "operator",
            "_weakrefset",
        ),
        "validation": ("bisect", "functools", "reprlib", "types"),
        "test": ("heapq", "calendar", "graphlib", "weakref", "copy", "pprint"),
    },
    "numbers": {
        "train": ("_pydecimal", "decimal", "numbers"),
        "validation": ("random", "colorsys"),
        "test": ("statistics", "fractions"),
    },
    "files": {
        "train": (
            "pathlib",
            "posixpath",
            "ntpath",
            "genericpath",
            "tarfile",
            "bz2",
            "lzma",
            "_compression",
            "pickle",
            "shelve",
            "dbm",
            "_pyio",
            "io",
            "plistlib",
            "netrc",
            "stat",
            "configparser",
        ),
        "validation": ("shutil", "csv", "linecache"),
        "test": ("zipfile", "tempfile", "fileinput", "filecmp", "gzip", "glob", "fnmatch"),
    },
    "network": {
        "train": (
            "urllib",
            "http",
            "imaplib",
            "smtplib",
            "smtpd",
            "nntplib",
            "telnetlib",
            "socket",
            "ssl",
            "ipaddress",
            "email",
            "mailbox",
            "base64",
            "quopri",
            "webbrowser",
            "asyncore",
            "asynchat",
        ),
        "validation": ("xmlrpc", "poplib", "mimetypes"),
        "test": ("ftplib", "socketserver", "wsgiref", "cgi", "uuid"),
    },
    "threads": {
        "train": ("asyncio", "multiprocessing", "threading", "_threading_local"),
        "validation": ("subprocess", "selectors"),
        "test": ("concurrent", "queue", "sched"),
    },
    "testing": {
        "train": ("unittest", "doctest", "bdb"),
        "validation": ("pydoc",),
        "test": ("pdb", "timeit", "trace", "tracemalloc", "profile", "cProfile", "pstats"),
    },
    "graphics": {
        "train": ("tkinter", "idlelib"),
        "validation": ("turtledemo", "tkinter.ttk", "curses"),
        "test": ("turtle",),
    },
    "code": {
        "train": ("ast", "importlib", "imp", "inspect", "lib2to3", "pickletools"),
        "validation": ("code", "codeop", "zipimport", "tokenize"),
        "test": (
            "dis",
            "symtable",
            "pyclbr",
            "compileall",
            "py_compile",
            "pkgutil",
            "runpy",
            "tabnanny",
            "modulefinder",
        ),
    },
    "system": {
        "train": ("os", "logging", "ctypes", "venv", "_sitebuiltins", "_aix_support", "_osx_support"),
        "validation": ("argparse", "sysconfig", "site"),
        "test": ("platform", "optparse", "getopt", "getpass", "pty", "tty"),
    },
}

_BY_MODULE: dict[str, tuple[str, Split]] = {
    name: (area, split) for area, splits in AREAS.items() for split, names in splits.items() for name in names
}


def area_of(module: str) -> tuple[str, Split] | None:
    """(area, split) of a dotted module name, or None where the module has no area."""
    parts = module.split(".")
    for end in range(len(parts), 0, -1):
        found = _BY_MODULE.get(".".join(parts[:end]))
        if found is not None:
            return found
    return None


def held_out_names() -> frozenset[str]:
    """Modules whose text no model may be pretrained on: those of validation and test."""
    return frozenset(name for name, (_, split) in _BY_MODULE.items() if split != "train")


def is_held_out(module: str) -> bool:
    """Whether a module is held out itself, or tests one that is (`test.test_textwrap`, `idlelib.idle_test.test_code`).

    Test modules are matched by prefix, which errs on the side of leaving out: `test_codecs` goes with `code`.
    """
    flat = tuple(f"test_{name.replace('.', '_')}" for name in held_out_names())
    if any(part.startswith(flat) for part in module.split(".")):
        return True
    found = area_of(module)
    return found is not None and found[1] != "train"
