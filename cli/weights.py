"""The `weights` command: what is on this machine, and fetching it."""

import argparse

HELP = "list, fetch or verify the weights of learned operators"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command."""
    parser.add_argument("action", choices=("list", "fetch", "verify"))
    parser.add_argument("names", nargs="*", metavar="NAME", help="of the list, or OWNER/NAME of a model on the hub")
    parser.add_argument("--weights", metavar="DIR", help="folder; default: the one of SELECTS_WEIGHTS, or the cache")


def run(parsed: argparse.Namespace) -> int:
    """List, fetch or verify published weights."""
    from models.weights.fetch import fetch_weights, list_weights, verify_weights

    if parsed.action == "list":
        print(list_weights(parsed.weights))
    elif parsed.action == "fetch":
        fetch_weights(parsed.names, parsed.weights)
    else:
        table, is_fine = verify_weights(parsed.names, parsed.weights)
        print(table)
        return 0 if is_fine else 1
    return 0
