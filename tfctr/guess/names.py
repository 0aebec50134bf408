"""What the names of columns say."""

import re

USERS = (
    *("user", "uid", "customer", "visitor", "reviewer", "member", "viewer", "account", "client"),
    *("person", "shopper", "subscriber", "reader", "listener", "player", "device", "session"),
)
ITEMS = (
    *("item", "iid", "product", "movie", "ad", "article", "sku", "asin", "video", "song", "track"),
    *("book", "news", "listing", "goods", "offer", "creative", "banner", "app", "game", "post"),
    *("hotel", "recipe", "show", "place", "business"),
)
CLICKS = (
    *("click", "clicks", "clicked", "clk", "label", "target", "y", "conversion", "converted"),
    *("purchase", "purchased", "buy", "bought", "like", "liked", "install", "installed"),
    *("response", "follow", "followed", "share", "shared", "watched", "viewed", "engaged"),
)
STARS = ("rating", "ratings", "stars", "star", "score", "overall", "grade", "vote")
TIMES = (
    *("timestamp", "time", "datetime", "ts", "unix", "date", "when", "hour", "day", "created"),
    "t",
)
IDS = {
    *("id", "ids", "uid", "iid", "code", "zip", "key", "hash", "uuid", "type", "kind", "category"),
    *("cat", "class", "group", "brand", "city", "region", "country", "state", "cluster", "segment"),
}
IDENTITY = {"id", "key", "no", "code", "hash", "uuid", "parent"}  # of what the other word says


def words(name: str) -> list[str]:
    """words("reviewerID") == words("reviewer_id") == ["reviewer", "id"]"""
    found = re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+", name)
    return [word.lower() for word in found]


def place(name: str, known: tuple[str, ...]) -> int | None:
    """The place of a column's name in a list of words, if it has one of them."""
    found = [known.index(word) for word in words(name) if word in known]
    return min(found, default=None)


def identity(name: str, known: tuple[str, ...]) -> int | None:
    """As `place`, but of a name that says nothing else than what is identified."""
    rest = [word for word in words(name) if word not in IDENTITY]
    return known.index(rest[0]) if len(rest) == 1 and rest[0] in known else None


def outcome(name: str) -> int | None:
    """As `identity`, of what a user did: `is_click`, `clicked`."""
    rest = [word for word in words(name) if word not in {"is", "has", "was", "did", "flag"}]
    return CLICKS.index(rest[0]) if len(rest) == 1 and rest[0] in CLICKS else None


def about(name: str) -> str | None:
    """The side that a name such as `user_age` says; None if it says none, or both."""
    of = {word for word in words(name)}
    user, item = bool(of & {*USERS}), bool(of & {*ITEMS})
    return None if user == item else ("user" if user else "item")
