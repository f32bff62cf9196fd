"""The command line: one file a command, imported only when that command is called.

To add a command:
1. write `ctxpeft/cli/<name>.py` with `command`, a function typer understands (or `app`, a `typer.Typer`);
2. add one line to `COMMANDS`: name -> (module, one-line help);
3. return None, or an int, or raise `typer.Exit(code)`: 0 fine, 1 a law or a check is violated;
4. let every `CtxpeftError` through: `main` prints a sentence for each mistake and exits 2;
5. import torch, transformers and optuna inside the function, never at the top of the file.
"""

from __future__ import annotations

import importlib
import logging
import os
import sys
from collections.abc import Sequence
from typing import Any

from ctxpeft import __version__
from ctxpeft.errors import CtxpeftError, LawError, did_you_mean

COMMANDS: dict[str, tuple[str, str]] = {
    "ls": ("ctxpeft.cli.ls", "List the shipped variants, blocks, search spaces or tasks."),
    "show": ("ctxpeft.cli.show", "Show one variant: its equation, blocks, shapes and parameter count."),
    "validate": (
        "ctxpeft.cli.validate",
        "Check variant, space or task files: a sentence on each mistake.",
    ),
    "cp": ("ctxpeft.cli.cp", "Copy a shipped variant or space into a file of your own."),
    "schema": ("ctxpeft.cli.schema", "Print the JSON schema of a variant or a search space."),
    "doctor": (
        "ctxpeft.cli.doctor",
        "What is installed, what the machine has, whether a model is supported.",
    ),
    "check": ("ctxpeft.cli.check", "Check on a model that a variant obeys the laws of the algebra."),
    "train": ("ctxpeft.cli.train", "Train one variant on one task."),
    "eval": ("ctxpeft.cli.eval", "Evaluate a model, with or without an adapter, on one task."),
    "compare": (
        "ctxpeft.cli.compare",
        "Compare variants: rates tuned, seeds shared, intervals given.",
    ),
    "reproduce": (
        "ctxpeft.cli.reproduce",
        "Run a finished run again, and say whether it comes out the same.",
    ),
    "search": ("ctxpeft.cli.search", "Search a space of variants."),
    "diagnose": ("ctxpeft.cli.diagnose", "Measure what adapters do: dilution, spectrum, attention, gates."),
    "report": ("ctxpeft.cli.report", "Report on a search that ran, or still runs."),
}

GROUPS: dict[str, tuple[str, ...]] = {
    "Look and write": ("ls", "show", "validate", "cp", "schema"),
    "Try": ("check", "doctor"),
    "Train and compare": ("train", "eval", "compare", "reproduce"),
    "Search": ("search", "report"),
    "Understand": ("diagnose",),
}
_EPILOG = """\
Begin with:
  ctxpeft ls variants
  ctxpeft train --variant prefix-tuning-plus --task docstring-area --out runs/first steps=100
  ctxpeft search quickstart

ctxpeft COMMAND --help has examples; ctxpeft --install-completion completes commands and names in your shell.
Exit codes: 0 fine, 1 a law or a check is violated, 2 usage or configuration, 130 interrupted."""
_OPTIONS = ("--help", "--version", "--install-completion", "--show-completion")
_COMPLETION = "_CTXPEFT_COMPLETE"
_NOISY = ("torchao", "torch.utils._pytree")
"""Loggers that warn, when transformers imports torchao, of kernels that the machine does not have."""
_USER_OS_ERRORS = (FileNotFoundError, FileExistsError, NotADirectoryError, IsADirectoryError)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code; `argv` is without the program's name."""
    from ctxpeft.cli import _output

    args = list(sys.argv[1:] if argv is None else argv)
    for name in _NOISY:
        logging.getLogger(name).setLevel(logging.ERROR)
    try:
        code = _run(args)
        sys.stdout.flush()
    except CtxpeftError as error:
        for sentence in error.mistakes:
            _output.print_error(sentence)
        return 1 if isinstance(error, LawError) else 2
    except KeyboardInterrupt:
        return _interrupted()
    except BrokenPipeError:
        _forget_output()
        return 0
    except Exception as error:
        from ctxpeft.files import disk_refusal

        reason = disk_refusal(error)
        if isinstance(error, _USER_OS_ERRORS) or (reason and isinstance(error, OSError) and error.filename):
            _output.print_error(f"cannot use {error.filename}: {reason or str(error.strerror).lower()}")
        elif reason is None:
            raise
        else:
            _forget_output()
            _output.print_error(f"cannot write: {reason}; what was finished before is kept")
        return 2
    return code


def _run(args: list[str]) -> int:
    from ctxpeft.cli import _output

    if _COMPLETION in os.environ or args[:1] in (["--install-completion"], ["--show-completion"]):
        from ctxpeft.cli._root import run

        return run(args)
    if not args or args[0] in ("--help", "-h", "help"):
        _output.print_help(COMMANDS, GROUPS, _EPILOG)
        return 0 if args else 2
    if args[0] in ("--version", "-V"):
        print(f"ctxpeft {__version__}")
        return 0
    name = args[0]
    if name not in COMMANDS:
        kind = "option" if name.startswith("-") else "command"
        known = _OPTIONS if kind == "option" else COMMANDS
        raise CtxpeftError(f"unknown {kind} '{name}'{did_you_mean(name, known)}")
    return run_command(name, args[1:])


def _forget_output() -> None:
    """Nobody reads standard output any more, or it cannot be written: Python must not try again when it ends."""
    sys.stdout = open(os.devnull, "w")  # noqa: SIM115 - it stays open to the end


def command_of(name: str) -> Any:
    """Import the command's module and make what typer runs of it."""
    import typer
    from typer.main import get_command

    from ctxpeft.cli import _help
    from ctxpeft.cli._arguments import RUN

    function = importlib.import_module(COMMANDS[name][0]).command
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    app.command(name, help=_help.prose(function), epilog=_help.epilog(function))(function)
    found: Any = get_command(app)
    for param in found.params:
        if param.param_type_name == "option" and not getattr(param, "rich_help_panel", None):
            param.rich_help_panel = RUN
        if getattr(param, "is_flag", False):
            param.metavar = ""
    return found


def run_command(name: str, args: Sequence[str]) -> int:
    """Import the command's module, parse `args` with typer and return the exit code."""
    import typer

    from ctxpeft.cli import _output
    from ctxpeft.cli._arguments import expand_variadic

    command = command_of(name)
    # typer carries its own copy of click, so the base class is taken from typer's public name.
    usage_error: type[Exception] = typer.BadParameter.__mro__[1]
    click_error: type[Exception] = typer.BadParameter.__mro__[2]
    try:
        result = command(args=expand_variadic(args), prog_name=f"ctxpeft {name}", standalone_mode=False)
    except typer.Abort:
        return _interrupted()
    except click_error as error:
        hint = f" (see ctxpeft {name} --help)" if isinstance(error, usage_error) else ""
        _output.print_error(f"{_told(error, command)}{hint}")
        return 2
    if result == 130:
        return _interrupted()
    return result if isinstance(result, int) else 0


def _told(error: Any, command: Any) -> str:
    """A usage error in our words where click only lists what it thought of."""
    option = getattr(error, "option_name", None)
    if type(error).__name__ == "NoSuchOption" and option:
        known = [o for p in command.params if p.param_type_name == "option" for o in p.opts]
        if any(p.name == "overrides" for p in command.params) and (setting := _setting(option)):
            return f"no option {option}; it is a setting, without dashes: {setting}=VALUE"
        return f"no option {option}{did_you_mean(option, [o for o in known if o.startswith('--')])}"
    message = str(getattr(error, "format_message", error.__str__)()).rstrip(".")
    return message[:1].lower() + message[1:]


def _setting(option: str) -> str:
    """The setting of training or task that an option is mistaken for, or nothing."""
    from ctxpeft.tasks import TaskSpec
    from ctxpeft.training import TrainingConfig

    name = option.lstrip("-").partition("=")[0].replace("-", "_")
    return name if name in TrainingConfig.model_fields or name in TaskSpec.model_fields else ""


def _interrupted() -> int:
    from ctxpeft.cli import _output

    _output.print_error("interrupted; what was finished is saved, and the same command continues from it")
    return 130
