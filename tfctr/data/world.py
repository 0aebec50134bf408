"""A generated world: a seeded click log whose true click probabilities are known.

Users with long-term tastes and a current interest see items, whose texts show their topics, in an
organic and an ads domain. docs/world.md gives the logit, what each method can find in it, and
measured figures.
"""

import dataclasses
import functools
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from tfctr.data.times import SECONDS_PER_DAY

START = 1_704_067_200  # Monday 2024-01-01 00:00 UTC, in seconds
BLOCK = 65_536  # rows drawn from one random state; a slice of the log is cut from whole blocks

# --- words ------------------------------------------------------------------------------------


def _words(*rows: str) -> NDArray[np.str_]:
    """Words split at blanks: `[words]` for one row, `[rows, words]` for more."""
    return np.squeeze(np.array([row.split() for row in rows]))


# Topics are not in the log: only their words, categories and brands are.
TOPICS = {
    "running": "running marathon jogging sprint track racing",
    "hiking": "hiking trail summit alpine ridge trekking",
    "cycling": "cycling bicycle pedal velodrome gravel saddle",
    "cooking": "cooking chef baking roasting recipe grill",
    "coffee": "coffee espresso barista roastery latte brewing",
    "gardening": "gardening flower greenhouse herb orchard seedling",
    "photography": "photography camera lens portrait darkroom studio",
    "gaming": "gaming arcade console esports pixel joystick",
    "music": "music guitar piano concert vinyl jazz",
    "travel": "travel passport airport island voyage cruise",
    "family": "baby nursery toddler cradle stroller playtime",
    "pets": "pet puppy kitten aquarium kennel paw",
    "office": "office desk meeting notebook typing commuter",
    "yoga": "yoga pilates meditation stretching breathing balance",
    "painting": "painting watercolor sketch canvas easel gallery",
    "seaside": "beach surfing sailing snorkel harbor swimming",
}
TOPIC_CATEGORIES = {
    "running": "Shoes Clothing Electronics",
    "hiking": "Shoes Bags Clothing",
    "cycling": "Clothing Tools Electronics",
    "cooking": "Kitchen Books Tools",
    "coffee": "Kitchen Electronics Books",
    "gardening": "Tools Books Home",
    "photography": "Electronics Bags Books",
    "gaming": "Electronics Toys Home",
    "music": "Electronics Books Home",
    "travel": "Bags Books Clothing",
    "family": "Toys Clothing Beauty",
    "pets": "Toys Home Tools",
    "office": "Electronics Bags Home",
    "yoga": "Clothing Beauty Home",
    "painting": "Tools Books Toys",
    "seaside": "Shoes Beauty Bags",
}
CATEGORY_NOUNS = {
    "Shoes": "shoes sneakers boots sandals slippers",
    "Clothing": "jacket shirt socks gloves hat",
    "Electronics": "speaker headphones sensor lamp charger",
    "Books": "guide handbook novel atlas journal",
    "Kitchen": "mug bowl knife bottle tray",
    "Home": "cushion blanket shelf poster rug",
    "Toys": "puzzle blocks figure kite dominoes",
    "Beauty": "cream soap oil balm shampoo",
    "Bags": "backpack tote pouch suitcase satchel",
    "Tools": "toolbox pliers stand case brush",
}
# From low to high: the constant part of an item's quality chooses the row.
QUALITY_WORDS = _words(
    "basic plain budget refurbished",
    "classic handy everyday simple",
    "premium award-winning luxury bestselling",
)
FEATURES = _words(
    "waterproof lightweight foldable soft durable compact handmade recycled padded slim"
)
GENERIC_TAGS = _words("new sale gift seasonal limited online")
BRANDS = _words(
    "Alden Birk Corvo Dahlia Elmwood Fjell Garnet Halcyon Iris Juniper Kestrel Lumen Marlow Nimbus "
    "Orla Pine Quill Rowan Sable Tern Umber Vesper Willow Xenia Yarrow Zephyr Aster Briar Cinder "
    "Drift Ember Finch"
)
AGE_GROUPS = _words("18-24 25-34 35-44 45-54 55-64 65+")
GENDERS = _words("female male other")
CITIES = _words("Lisbon Oslo Lima Accra Osaka Quito Tallinn Porto Leeds Graz Pune Hanoi")
DEVICES = _words("mobile desktop tablet")
DOMAINS = _words("organic ads")

NUM_TOPICS = len(TOPICS)
TOPIC_WORDS = _words(*TOPICS.values())
CATEGORIES = np.array(list(CATEGORY_NOUNS))
CATEGORY_WORDS = _words(*CATEGORY_NOUNS.values())
CATEGORIES_OF_TOPIC = np.array(
    [
        [list(CATEGORY_NOUNS).index(name) for name in TOPIC_CATEGORIES[topic].split()]
        for topic in TOPICS
    ]
)
NUM_PRICE_LEVELS = 4
NUM_POSITIONS = 8
CONTEXT_SIZES = (10, 100, 1_000, 10_000)  # distinct values of context_00, context_01, ... in turn

# --- how strong each part is (docs/world.md, "The logit") ---------------------------------------

BIAS = np.array([-1.75, -3.5])  # organic, ads
USER_SCALE = 0.35
QUALITY_SCALE = 0.45
TEXT_SHARE = 0.5  # of the quality's variance: the constant part, which the adjective shows
TASTE_SCALE = 0.65  # of the first topic only
SECOND_TOPIC = 0.5  # weight of the second topic; the first has 1
INTEREST_LIFT = 1.4  # on the logit of items on the user's current topic
INTEREST_DAYS = 5.0  # how long a user's current interest lasts
INTEREST_SHARE = 0.35  # of impressions, drawn from the user's current interest
AGE_CATEGORY_SCALE = 0.55
DEVICE_PRICE_SCALE = 0.5
POSITION_STEP = -0.1
HOUR_SCALE = 0.1
ADS_USER_SCALE = 0.35
ADS_ITEM_SCALE = 0.35
ADS_AGE_CATEGORY_SCALE = 0.4
ADS_ITEM_SHARE = 0.3
LATECOMERS = 0.4  # share of users, and of items, that appear during the log, evenly over its time
PAUSED_USERS = 0.3  # share of users who are absent for a long middle part of the log


@dataclasses.dataclass(frozen=True)
class World:
    """A log of impressions with known click probabilities, readable at any row.

    Rows are drawn in fixed blocks, each from its own counter-based random state (Philox keyed by
    the seed, counting by block): `events` gives the same rows however the log is cut, so many
    workers can each write a part. A pickled `World` holds only its parameters.

    Args:
        num_users: users in all, at least 1. A user takes about 130 bytes of memory.
        num_items: items in all, at least 16 (one a topic).
        num_events: rows of the log, at least 1. They take no memory until drawn.
        seed: a number from 0 to 2**63 - 1; worlds of different seeds share nothing but the words.
        days: days that the log spans, 1 to 3,650; rows are spread over them with a daily rhythm.
        ads_share: share of rows in the ads domain, 0 to 1; the others are organic.
        drift: how far an item's drifting quality moves in a week, as a standard deviation in units
            of its own spread, 0 (never changes) to 1.
        extra_fields: further string columns `context_00`, `context_01`, ... (0 to 100), Zipf
            distributed over 10, 100, 1,000, 10,000 values in turn. They carry no signal, and adding
            them changes no other column.

    Raises:
        ValueError: a parameter is out of its range.
    """

    num_users: int = 2_000
    num_items: int = 1_000
    num_events: int = 100_000
    seed: int = 1
    days: int = 60
    ads_share: float = 0.2
    drift: float = 0.4
    extra_fields: int = 0

    def __post_init__(self) -> None:
        for name, low, high in (
            ("num_users", 1, 2**31 - 1),
            ("num_items", NUM_TOPICS, 2**31 - 1),
            ("num_events", 1, 2**40),
            ("seed", 0, 2**63 - 1),
            ("days", 1, 3_650),
            ("extra_fields", 0, 100),
        ):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
                raise ValueError(
                    f"World: `{name}` must be a whole number from {low} to {high}. "
                    f"Received: {value!r}"
                )
        for name in ("ads_share", "drift"):
            value = getattr(self, name)
            if not isinstance(value, int | float) or not 0 <= value <= 1:
                raise ValueError(f"World: `{name}` must be from 0 to 1. Received: {value!r}")

    @property
    def event_schema(self) -> pa.Schema:
        """The columns of `events`, in order."""
        return pa.schema(
            [
                ("timestamp", pa.int64()),
                ("user_id", pa.int64()),
                ("item_id", pa.int64()),
                ("domain", pa.string()),
                ("hour", pa.int64()),
                ("device", pa.string()),
                ("position", pa.int64()),
                *((f"context_{k:02d}", pa.string()) for k in range(self.extra_fields)),
                ("click", pa.int64()),
                ("true_probability", pa.float64()),
            ]
        )

    def users(self) -> pa.Table:
        """Every user, a row each, keyed by `user_id` (int64, 1 to `num_users`).

        Columns `age_group`, `gender`, `city` (strings) and `account_age_days` (float64, days on
        the log's last day). Ids follow the order in which users first become available.
        """
        users = _users(self)
        return pa.table(
            {
                "user_id": np.arange(1, self.num_users + 1),
                "age_group": _pick(AGE_GROUPS, users.age_group),
                "gender": _pick(GENDERS, users.gender),
                "city": _pick(CITIES, users.city),
                "account_age_days": users.account_age_days,
            }
        )

    def items(self) -> pa.Table:
        """Every item, a row each, keyed by `item_id` (int64, 1 to `num_items`).

        Columns `title`, `description`, `category`, `brand` (strings), `tags` (list of 1 to 4
        strings) and `price` (float64, lognormal). No two titles are equal. Ids follow the order
        in which items first become available.
        """
        return _item_table(self)

    def events(self, start: int, stop: int) -> pa.Table:
        """Rows `start` to `stop` (exclusive) of the log, with the columns of `event_schema`.

        `timestamp` is in seconds (UTC) and never falls from row to row; `hour` (0-23) follows from
        it; `domain` is "organic" or "ads"; `position` is 1 (top) to 8; `click` is 0 or 1.
        `true_probability` is what the click was drawn from: for evaluation, never a feature.

        Raises:
            ValueError: not 0 <= start <= stop <= num_events.
        """
        parts = [self.event_schema.empty_table()]
        for block, cut in self._blocks(start, stop):
            parts.append(_event_table(self, block).slice(cut.start, cut.stop - cut.start))
        return pa.concat_tables(parts)

    def best_auc(self, start: int, stop: int) -> float:
        """Area under the ROC curve of `true_probability` for the clicks of rows `start` to `stop`.

        No model can expect to rank these rows better.

        Raises:
            ValueError: not 0 <= start <= stop <= num_events, or the rows hold one class only.
        """
        from tfctr.metrics import auc  # here: workers that only draw rows need no metrics

        table = self.events(start, stop)
        clicks = table["click"].to_numpy()
        if clicks.size == 0 or clicks.min() == clicks.max():
            raise ValueError(
                f"World.best_auc: rows {start} to {stop} hold {int(clicks.sum())} clicks in "
                f"{clicks.size} rows; an AUC needs clicks and non-clicks. Take more rows."
            )
        return auc(clicks, table["true_probability"].to_numpy())

    def history_free_probability(self, start: int, stop: int) -> NDArray[np.float64]:
        """`true_probability` of rows `start` to `stop`, averaged over the user's current interest.

        It is the best prediction from the whole row and the world's tables, without the user's
        history: the chance that the item is on the user's current topic follows from how
        impressions are drawn (Bayes' rule). Shape `[stop - start]`.

        Raises:
            ValueError: not 0 <= start <= stop <= num_events.
        """
        parts = [np.zeros(0)]
        for block, cut in self._blocks(start, stop):
            rows = _draw(self, block)
            logit = _logit(self, rows)
            on_topic = _on_topic_chance(self, rows)
            mixed = on_topic * _sigmoid(logit + INTEREST_LIFT) + (1 - on_topic) * _sigmoid(logit)
            parts.append(mixed[cut])
        return np.concatenate(parts)

    def _blocks(self, start: int, stop: int) -> list[tuple[int, slice]]:
        """The blocks that cover the rows, each with the part of it that is asked for."""
        if not 0 <= start <= stop <= self.num_events:
            raise ValueError(
                f"World: rows must be within 0 <= start <= stop <= {self.num_events} (num_events). "
                f"Received: start={start}, stop={stop}"
            )
        return [
            (block, slice(max(start - block * BLOCK, 0), min(stop - block * BLOCK, BLOCK)))
            for block in range(start // BLOCK, -(-stop // BLOCK))
        ]


USER_STREAM, ITEM_STREAM, TABLE_STREAM, EVENT_STREAM, CONTEXT_STREAM = range(5)


def _random(world: World, stream: int, block: int = 0) -> np.random.Generator:
    """The random state of one block of one stream, the same wherever it is made."""
    return np.random.Generator(np.random.Philox(key=(world.seed, stream), counter=(0, block, 0, 0)))


def _pick(words: NDArray[np.str_], codes: NDArray[np.integer]) -> pa.Array:
    return pc.take(pa.array(words), pa.array(codes))


def _births(n: int, always: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """When each of `n` becomes available, as a rising share of the log's time; the first at 0."""
    late = min(round(n * LATECOMERS), n - always)
    return np.concatenate([np.zeros(n - late), np.sort(rng.random(late))])


def _zipf_weights(
    n: int, shift: float, exponent: float, rng: np.random.Generator
) -> NDArray[np.float64]:
    """Zipf-Mandelbrot popularities in random order."""
    return rng.permutation((np.arange(1, n + 1) + shift) ** -exponent)


# --- users --------------------------------------------------------------------------------------


class _Users(NamedTuple):
    age_group: NDArray[np.int8]
    gender: NDArray[np.int8]
    city: NDArray[np.int8]
    account_age_days: NDArray[np.float64]
    birth: NDArray[np.float64]  # rising; share of the log's time
    pause: NDArray[np.float64]  # [users, 2]: absent from .. to, shares of the log's time
    weight: NDArray[np.float64]  # cumulative popularity
    bias: NDArray[np.float64]  # [2, users]: inclination to click, by domain
    taste: NDArray[np.float32]  # [users, topics]
    device: NDArray[np.int8]  # the device used mostly
    phase: NDArray[np.float64]  # where in a period of interest the log starts


@functools.lru_cache(maxsize=4)
def _users(world: World) -> _Users:
    n, rng = world.num_users, _random(world, USER_STREAM)
    age_group = rng.integers(len(AGE_GROUPS), size=n, dtype=np.int8)
    gender = rng.choice(len(GENDERS), size=n, p=[0.48, 0.48, 0.04]).astype(np.int8)
    city = (len(CITIES) * rng.random(n) ** 2).astype(np.int8)
    birth = _births(n, 1, rng)
    account_age = (1 - birth) * world.days + np.where(birth > 0, 0, rng.exponential(400, n))

    # User 1 is never absent, and takes a row when the users drawn before are absent.
    pause = np.stack([rng.uniform(0.2, 0.5, n), rng.uniform(0.7, 0.9, n)], axis=1)
    pause[(rng.random(n) >= PAUSED_USERS) | (np.arange(n) == 0)] = 2.0

    by_city = rng.standard_normal(len(CITIES))
    bias = 0.4 * by_city[city] + np.sqrt(1 - 0.4**2) * rng.standard_normal(n)
    bias = USER_SCALE * (bias - bias.mean())
    ads_bias = ADS_USER_SCALE * rng.standard_normal(n)
    by_group = rng.standard_normal((len(AGE_GROUPS), len(GENDERS), NUM_TOPICS))
    taste = 0.5 * by_group[age_group, gender]
    taste += np.sqrt(1 - 0.5**2) * rng.standard_normal((n, NUM_TOPICS))
    return _Users(
        age_group=age_group,
        gender=gender,
        city=city,
        account_age_days=account_age,
        birth=birth,
        pause=pause,
        weight=np.cumsum(_zipf_weights(n, 10, 0.8, rng)),
        bias=np.stack([bias, bias + ads_bias]),
        taste=(TASTE_SCALE * taste).astype(np.float32),
        device=rng.choice(len(DEVICES), size=n, p=[0.6, 0.3, 0.1]).astype(np.int8),
        phase=rng.random(n),
    )


# --- items --------------------------------------------------------------------------------------


class _Items(NamedTuple):
    topic: NDArray[np.int8]
    second_topic: NDArray[np.int8]
    category: NDArray[np.int8]
    brand: NDArray[np.int8]
    price: NDArray[np.float64]
    price_level: NDArray[np.int8]
    tier: NDArray[np.int8]  # row of QUALITY_WORDS
    in_ads: NDArray[np.bool_]
    birth: NDArray[np.float64]
    weight: NDArray[np.float64]  # popularity
    quality: NDArray[np.float32]  # [items, weeks]
    ads_bias: NDArray[np.float64]


@functools.lru_cache(maxsize=4)
def _items(world: World) -> _Items:
    n, rng = world.num_items, _random(world, ITEM_STREAM)
    row = np.arange(n)
    # The first items cover every topic in both domains from the start, so no pool is ever empty.
    topic = np.where(row < NUM_TOPICS, row, rng.integers(NUM_TOPICS, size=n))
    second_topic = (topic + rng.integers(1, NUM_TOPICS, size=n)) % NUM_TOPICS
    usual_category = CATEGORIES_OF_TOPIC[topic, rng.choice(3, size=n, p=[0.5, 0.3, 0.2])]
    category = np.where(rng.random(n) < 0.85, usual_category, rng.integers(len(CATEGORIES), size=n))
    # Brand b mostly makes things for topics b and b + 16.
    brands = len(BRANDS)
    usual_brand = (topic + NUM_TOPICS * rng.integers(brands // NUM_TOPICS, size=n)) % brands
    brand = np.where(rng.random(n) < 0.75, usual_brand, rng.integers(brands, size=n))
    log_price = rng.normal(2.5, 0.5, len(CATEGORIES))[category] + rng.normal(0, 0.6, n)
    price_rank = np.argsort(np.argsort(log_price))

    constant = rng.standard_normal(n)
    # One value a week, each pulled back just enough that the spread stays 1.
    weeks = world.days // 7 + 2
    drifting = np.empty((weeks, n))
    drifting[0] = rng.standard_normal(n)
    kept = 1 - world.drift**2 / 2
    for week in range(1, weeks):
        drifting[week] = kept * drifting[week - 1] + np.sqrt(1 - kept**2) * rng.standard_normal(n)
    quality = np.sqrt(TEXT_SHARE) * constant + np.sqrt(1 - TEXT_SHARE) * drifting
    return _Items(
        topic=topic.astype(np.int8),
        second_topic=second_topic.astype(np.int8),
        category=category.astype(np.int8),
        brand=brand.astype(np.int8),
        price=np.exp(log_price).round(2),
        price_level=(price_rank * NUM_PRICE_LEVELS // n).astype(np.int8),
        tier=np.digitize(constant, [-0.43, 0.43]).astype(np.int8),  # thirds of a standard normal
        in_ads=(row < NUM_TOPICS) | (rng.random(n) < ADS_ITEM_SHARE),
        birth=_births(n, NUM_TOPICS, rng),
        weight=_zipf_weights(n, 3, 1.2, rng),
        quality=(QUALITY_SCALE * quality.T).astype(np.float32, order="C"),
        ads_bias=ADS_ITEM_SCALE * rng.standard_normal(n),
    )


def _item_table(world: World) -> pa.Table:
    items, rng = _items(world), _random(world, ITEM_STREAM, 1)
    n = world.num_items
    words_a_topic = TOPIC_WORDS.shape[1]
    first = rng.integers(words_a_topic, size=n)
    second = (first + rng.integers(1, words_a_topic, size=n)) % words_a_topic
    word, other_word = TOPIC_WORDS[items.topic, first], TOPIC_WORDS[items.topic, second]
    second_word = TOPIC_WORDS[items.second_topic, rng.integers(words_a_topic, size=n)]
    quality = QUALITY_WORDS[items.tier, rng.integers(QUALITY_WORDS.shape[1], size=n)]
    noun = CATEGORY_WORDS[items.category, rng.integers(CATEGORY_WORDS.shape[1], size=n)]
    feature, finish = rng.choice(FEATURES, size=(2, n))
    brand = BRANDS[items.brand]

    titles: list[str] = []
    times_seen: dict[str, int] = {}
    for parts in zip(quality, feature, word, noun, brand, strict=True):
        title = "{} {} {} {} by {}".format(parts[0].capitalize(), *parts[1:])
        seen = times_seen[title] = times_seen.get(title, 0) + 1
        titles.append(title if seen == 1 else f"{title}, series {seen}")
    descriptions = [
        f"{a.capitalize()} {b} for {c} and {d} fans, popular with {e} fans too."
        for a, b, c, d, e in zip(finish, noun, word, other_word, second_word, strict=True)
    ]

    generic = rng.choice(GENERIC_TAGS, size=n)
    tags = rng.permuted(np.stack([word, other_word, second_word, generic], axis=1), axis=1)
    tag_counts = rng.integers(1, tags.shape[1] + 1, size=n)
    return pa.table(
        {
            "item_id": np.arange(1, n + 1),
            "title": titles,
            "description": descriptions,
            "category": _pick(CATEGORIES, items.category),
            "brand": brand,
            "tags": [list(row[:count]) for row, count in zip(tags, tag_counts, strict=True)],
            "price": items.price,
        }
    )


# --- events -------------------------------------------------------------------------------------

ANY_TOPIC = NUM_TOPICS


class _Pools(NamedTuple):
    """The items that may be shown, by domain and topic (and of any topic), oldest first."""

    first: NDArray[np.int64]  # [pools + 1]: where a pool begins
    birth: NDArray[np.float64]  # an entry's birth, plus twice its pool: rising throughout
    item: NDArray[np.int64]
    weight: NDArray[np.float64]  # [entries + 1]: popularity of all entries before


class _Tables(NamedTuple):
    pools: _Pools
    seconds: NDArray[np.float64]  # when each hour of the log begins ...
    arrived: NDArray[np.float64]  # ... and the share of rows before it
    age_category: NDArray[np.float64]  # [2, ages, categories], by domain
    device_price: NDArray[np.float64]  # [devices, price levels]


@functools.lru_cache(maxsize=4)
def _tables(world: World) -> _Tables:
    items, rng = _items(world), _random(world, TABLE_STREAM)
    pools = []
    for shown in (np.ones_like(items.in_ads), items.in_ads):
        pools += [np.flatnonzero(shown & (items.topic == topic)) for topic in range(NUM_TOPICS)]
        pools.append(np.flatnonzero(shown))
    sizes = np.array([pool.size for pool in pools])
    entries = np.concatenate(pools)

    hour = np.arange(24 * world.days)
    rhythm = (1 + 0.7 * np.cos(2 * np.pi * (hour - 20) / 24)) * np.where(hour % 168 < 120, 1, 1.2)
    arrived = np.concatenate([[0], np.cumsum(rhythm)]) / rhythm.sum()

    shared, ads_only = rng.standard_normal((2, len(AGE_GROUPS), len(CATEGORIES)))
    organic = AGE_CATEGORY_SCALE * shared
    device_price = rng.standard_normal((len(DEVICES), NUM_PRICE_LEVELS))
    return _Tables(
        pools=_Pools(
            first=np.concatenate([[0], np.cumsum(sizes)]),
            birth=items.birth[entries] + 2.0 * np.repeat(np.arange(sizes.size), sizes),
            item=entries,
            weight=np.concatenate([[0], np.cumsum(items.weight[entries])]),
        ),
        seconds=3600.0 * np.arange(arrived.size),
        arrived=arrived,
        age_category=_crossed(np.stack([organic, organic + ADS_AGE_CATEGORY_SCALE * ads_only])),
        device_price=_crossed(DEVICE_PRICE_SCALE * device_price),
    )


def _crossed(table: NDArray[np.float64]) -> NDArray[np.float64]:
    """The pure cross: rows and columns of the last two axes average to 0."""
    table = table - table.mean(axis=-1, keepdims=True)
    return table - table.mean(axis=-2, keepdims=True)


class _Rows(NamedTuple):
    """One block of the log: indices into the tables, before the click."""

    timestamp: NDArray[np.int64]
    time: NDArray[np.float64]  # share of the log's time gone by, 0 to 1
    ads: NDArray[np.int64]  # 0 organic, 1 ads
    user: NDArray[np.int64]
    item: NDArray[np.int64]
    hour: NDArray[np.int64]
    device: NDArray[np.int64]
    position: NDArray[np.int64]
    interest: NDArray[np.int64]  # the user's current topic
    luck: NDArray[np.float64]  # a click if it is below the click probability


def _draw(world: World, block: int) -> _Rows:
    users, tables = _users(world), _tables(world)
    rng = _random(world, EVENT_STREAM, block)
    uniform = iter(rng.random((10, BLOCK)))

    row = block * BLOCK + np.arange(BLOCK) + next(uniform)
    elapsed = np.interp(row / world.num_events, tables.arrived, tables.seconds)
    timestamp = START + elapsed.astype(np.int64)
    time = (timestamp - START) / (world.days * SECONDS_PER_DAY)
    ads = (next(uniform) < world.ads_share).astype(np.int64)

    born = np.searchsorted(users.birth, time, side="right")
    user = np.zeros(BLOCK, np.int64)
    away = np.arange(BLOCK)
    for _ in range(3):
        pick = next(uniform)[away] * users.weight[born[away] - 1]
        drawn = np.searchsorted(users.weight, pick, side="right")
        user[away] = np.minimum(drawn, born[away] - 1)
        pause = users.pause[user[away]]
        away = away[(pause[:, 0] <= time[away]) & (time[away] < pause[:, 1])]
    user[away] = 0

    period = np.floor(time * world.days / INTEREST_DAYS + users.phase[user]).astype(np.uint64)
    interest = _hash(user, period, world.seed) % NUM_TOPICS
    on_interest = next(uniform) < INTEREST_SHARE
    pool = ads * (NUM_TOPICS + 1) + np.where(on_interest, interest, ANY_TOPIC)
    item = _draw_item(tables.pools, pool, time, next(uniform))

    mostly = next(uniform)
    other_device = (mostly * 1e6).astype(np.int64) % len(DEVICES)
    return _Rows(
        timestamp=timestamp,
        time=time,
        ads=ads,
        user=user,
        item=item,
        hour=timestamp // 3600 % 24,
        device=np.where(mostly < 0.8, users.device[user], other_device),
        position=(NUM_POSITIONS * next(uniform) ** 1.5).astype(np.int64) + 1,
        interest=interest,
        luck=next(uniform),
    )


def _hash(user: NDArray[np.int64], period: NDArray[np.uint64], seed: int) -> NDArray[np.int64]:
    """Well-mixed numbers of 0 to 2**31 - 1 from user and period (splitmix64)."""
    x = user.astype(np.uint64) << np.uint64(24) ^ period
    x += np.uint64((seed + 1) * 0x9E3779B97F4A7C15 % 2**64)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return (x >> np.uint64(33)).astype(np.int64)


def _pool_end(
    pools: _Pools, pool: NDArray[np.int64], time: NDArray[np.float64]
) -> NDArray[np.int64]:
    """Where the part of each pool that is born by then ends."""
    return np.searchsorted(pools.birth, 2.0 * pool + time, side="right")


def _draw_item(
    pools: _Pools,
    pool: NDArray[np.int64],
    time: NDArray[np.float64],
    uniform: NDArray[np.float64],
) -> NDArray[np.int64]:
    first, end = pools.first[pool], _pool_end(pools, pool, time)
    low, high = pools.weight[first], pools.weight[end]
    entry = np.searchsorted(pools.weight, low + uniform * (high - low), side="right") - 1
    return pools.item[np.clip(entry, first, end - 1)]


def _logit(world: World, rows: _Rows) -> NDArray[np.float64]:
    """The click logit without the lift of the user's current interest."""
    users, items, tables = _users(world), _items(world), _tables(world)
    ads, user, item = rows.ads, rows.user, rows.item
    week = rows.time * (world.days / 7)
    before = week.astype(np.int64)
    step = week - before
    quality = (1 - step) * items.quality[item, before] + step * items.quality[item, before + 1]
    taste = users.taste[user, items.topic[item]]
    taste = taste + SECOND_TOPIC * users.taste[user, items.second_topic[item]]
    return (
        BIAS[ads]
        + users.bias[ads, user]
        + quality
        + ads * items.ads_bias[item]
        + taste
        + tables.age_category[ads, users.age_group[user], items.category[item]]
        + tables.device_price[rows.device, items.price_level[item]]
        + POSITION_STEP * (rows.position - 1)
        + HOUR_SCALE * np.cos(2 * np.pi * (rows.hour - 20) / 24)
    )


def _on_topic_chance(world: World, rows: _Rows) -> NDArray[np.float64]:
    """The chance that a shown item is on its user's current topic, given only the item."""
    items, pools = _items(world), _tables(world).pools

    def chance_to_show(topic: NDArray[np.int64]) -> NDArray[np.float64]:
        pool = rows.ads * (NUM_TOPICS + 1) + topic
        total = pools.weight[_pool_end(pools, pool, rows.time)] - pools.weight[pools.first[pool]]
        return items.weight[rows.item] / total

    by_popularity = (1 - INTEREST_SHARE) * chance_to_show(np.full_like(rows.item, ANY_TOPIC))
    on_topic = by_popularity + INTEREST_SHARE * chance_to_show(items.topic[rows.item].astype(int))
    return on_topic / (on_topic + (NUM_TOPICS - 1) * by_popularity)


def _sigmoid(logit: NDArray[np.float64]) -> NDArray[np.float64]:
    return 1 / (1 + np.exp(-logit))


def _event_table(world: World, block: int) -> pa.Table:
    rows = _draw(world, block)
    match = _items(world).topic[rows.item] == rows.interest
    probability = _sigmoid(_logit(world, rows) + INTEREST_LIFT * match)
    columns = [
        rows.timestamp,
        rows.user + 1,
        rows.item + 1,
        _pick(DOMAINS, rows.ads),
        rows.hour,
        _pick(DEVICES, rows.device),
        rows.position,
        *_contexts(world, block),
        (rows.luck < probability).astype(np.int64),
        probability,
    ]
    return pa.table([pa.array(column) for column in columns], schema=world.event_schema)


def _contexts(world: World, block: int) -> list[pa.Array]:
    rng = _random(world, CONTEXT_STREAM, block)
    columns = []
    for field in range(world.extra_fields):
        size = CONTEXT_SIZES[field % len(CONTEXT_SIZES)]
        # Rounding down a log-uniform number gives ranks with chances near 1 / rank: Zipf's law.
        rank = np.exp(rng.random(BLOCK) * np.log(size + 1)).astype(np.int64) - 1
        columns.append(pc.take(_context_values(size), pa.array(np.minimum(rank, size - 1))))
    return columns


@functools.lru_cache
def _context_values(size: int) -> pa.Array:
    return pa.array([f"value_{rank}" for rank in range(size)])
