"""Completion of commands, flags and their values for bash, zsh and fish; the shell asks `rizbin completion words`."""

from rizbin import zoo
from rizbin.cli import schema
from rizbin.cli.parsing import near, negated, wants_help
from rizbin.cli.table import COMMANDS
from rizbin.core.commands import Command, Flag
from rizbin.core.errors import RizbinError

_SCRIPTS = {
    "bash": r"""_rizbin() {
    local IFS=$'\n'
    local found="$(rizbin completion words -- "${COMP_WORDS[@]:1:COMP_CWORD}")"
    COMPREPLY=($(compgen -W "$found" -- "${COMP_WORDS[COMP_CWORD]}"))
}
complete -o default -F _rizbin rizbin""",
    "zsh": r"""#compdef rizbin
_rizbin() {
    local -a found
    found=("${(@f)$(rizbin completion words -- "${words[@]:1:$((CURRENT - 1))}")}")
    [[ -n "$found" ]] && compadd -- $found
    _files
}
compdef _rizbin rizbin""",
    "fish": r"""function __rizbin
    set -l words (commandline -opc) (commandline -ct)
    rizbin completion words -- $words[2..-1]
end
complete -c rizbin -a '(__rizbin)'""",
}


def completion(words: list[str]) -> int:
    """`rizbin completion SHELL` prints the script; `rizbin completion words -- ...` answers it."""
    if not words or (wants_help(words) and words[0] != "words"):
        print("usage: rizbin completion bash|zsh|fish\n\nPrints a script that completes commands, flags and values:")
        print('  bash: eval "$(rizbin completion bash)"       in ~/.bashrc')
        print('  zsh:  eval "$(rizbin completion zsh)"        in ~/.zshrc, after compinit')
        print("  fish: rizbin completion fish | source        in ~/.config/fish/config.fish")
        return 0
    if words[0] == "words":
        rest = words[1:]
        print(*candidates(rest[1:] if rest[:1] == ["--"] else rest), sep="\n")
        return 0
    if words[0] not in _SCRIPTS:
        raise RizbinError(f"There is no completion for {words[0]!r}; {near(words[0], list(_SCRIPTS))}")
    print(_SCRIPTS[words[0]])
    return 0


def candidates(words: list[str]) -> list[str]:
    """What may stand at the place of the last word; empty where files do."""
    *before, last = words or [""]
    command, rest = _command_of(before)
    if command is None:
        return [word for word in (schema.members(before[0]) if before else COMMANDS) if word.startswith(last)]
    flag = _flag_of(rest[-1], command) if rest else None
    if flag is not None and flag.kinds != ("bool",):
        return [word for word in _values(flag) if word.startswith(last)]
    if last.startswith("-"):
        return [word for word in _flags(command) if word.startswith(last)]
    return [word for word in _positional(command) if word.startswith(last)]


def _command_of(before: list[str]) -> tuple[Command | None, list[str]]:
    """The command that the words name, and the words after its name; None where a word of its name is to come."""
    if not before or before[0] not in COMMANDS:
        return None, []
    if not COMMANDS[before[0]].family:
        is_command = before[0] in schema.shipped()["commands"]
        return (schema.command(before[0]) if is_command else Command(name=before[0], about="")), before[1:]
    if len(before) < 2 or before[1] not in schema.members(before[0]):
        return None, []
    if before[0] == "train":
        return schema.training(before[1])[0], before[2:]
    return schema.command(" ".join(before[:2])), before[2:]


def _flag_of(word: str, command: Command) -> Flag | None:
    return next((flag for flag in command.flags if word in (f"--{flag.flag}", *flag.short)), None)


def _flags(command: Command) -> list[str]:
    names = [f"--{flag.flag}" for flag in command.flags if not flag.positional]
    return [*names, *(f"--{negated(flag)}" for flag in command.flags if flag.kinds == ("bool",) and flag.default)]


def _values(flag: Flag) -> list[str]:
    known = {"model": list(zoo.names()), "data": ["scenes", "scenes:easy", "scenes:hard", "scenes:detail", "digits"]}
    return [*map(str, flag.choices), *known.get(flag.check, [])]


def _positional(command: Command) -> list[str]:
    return [value for flag in command.flags if flag.positional for value in _values(flag)]
