"""`python -m benchmarks COMMAND`: each command measures one thing, prints a table and takes --help."""

import sys
from importlib import import_module

from ddpm.errors import UsageError

COMMANDS = {
    "train": "images/s of a training step, beside other libraries and the limit",
    "sample": "images/s of a network evaluation while sampling, beside other libraries and the limit",
    "scale": "a training step that several processes share, and what their gradient tree costs",
    "data": "training on data larger than memory: resident memory and waiting for input",
    "pipeline": "the time of each stage of `dvc repro`",
    "gpu": "everything that only a GPU can show, in parts that continue where the last ended",
    "compare": "the duration of `ddpm compare` over many experiments",
    "memory_format": "a training step for each memory format and precision",
    "tracking": "the cost of tracking a training in MLflow",
}


def main(argv: list[str]) -> int:
    """Run the command that the first argument names. Its module is imported only then, because some are heavy."""
    if not argv or argv[0] in ("-h", "--help"):
        width = max(map(len, COMMANDS))
        lines = [f"  {name:<{width}}  {text}" for name, text in COMMANDS.items()]
        print("usage: python -m benchmarks COMMAND [options]\n\n" + "\n".join(lines))
        print("\n`python -m benchmarks COMMAND --help` lists the options of a command.")
        return 0
    name, *options = argv
    if name not in COMMANDS:
        print(f"there is no benchmark {name!r}; there are {', '.join(COMMANDS)}", file=sys.stderr)
        return 2
    sys.argv[0] = f"python -m benchmarks {name}"  # the name that --help shows
    try:
        import_module(f"benchmarks.{name}").run(options)
    except UsageError as error:
        print(f"{name}: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
