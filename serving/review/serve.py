"""The `review` command: an output and its journal behind a page, on this machine unless told otherwise."""

from collections.abc import Callable

from serving.guard import Guard, Limits
from serving.listen import check_token, hosts_of, listen
from serving.review.app import Finder, build_review
from serving.review.store import ReviewStore

LIMITS = Limits(body_bytes=1 << 20, requests_per_minute=6000)
"""a page of clips asks for some hundred pictures"""


def review(
    store: ReviewStore,
    finder: Finder,
    host: str,
    port: int,
    token: str | None,
    on_ready: Callable[[str], None],
) -> None:
    """Serve an output for review until interrupted.

    Args:
        store: the output.
        finder: answers the search box.
        host: address; for one that others can reach a token is needed.
        port: 0 takes a free one.
        token: which requests must bring; None: nobody is asked.
        on_ready: called with the address once requests are taken.

    Raises:
        UserError: the address cannot be had.
    """
    check_token(host, token)
    app = build_review(store, store.name, finder)
    listen(Guard(app, token, hosts_of(host), LIMITS), host, port, on_ready)
