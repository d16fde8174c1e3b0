"""The invented shop: a catalogue, a pool of queries with their gold slots, and a log drawn from it.

Everything is drawn in arrays: a query is a catalogue row, a shape (which slots the shopper names),
an order of words, and a spelling for each slot. Draws are integers and compared as integers, so
that the same seed gives the same shop on every machine.
"""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from demo.brands import Side, brand_names
from demo.surfaces import surfaces
from demo.words import ATTRIBUTES, CATEGORIES, PRODUCTS

VERSION = 1  # raise it when the same seed gives another shop

# Slots of a query, in the order of the arrays below.
BRAND, ATTR1, ATTR2, PRODUCT, SIZE = range(5)
# Which slots a shopper names, and how often.
SHAPES = (
    ((PRODUCT,), 11),
    ((ATTR1, PRODUCT), 13),
    ((ATTR1, ATTR2, PRODUCT), 4),
    ((PRODUCT, SIZE), 4),
    ((ATTR1, PRODUCT, SIZE), 3),
    ((ATTR1,), 1),
    ((BRAND,), 11),
    ((BRAND, PRODUCT), 18),
    ((BRAND, ATTR1, PRODUCT), 10),
    ((BRAND, ATTR1), 2),
    ((BRAND, ATTR1, ATTR2, PRODUCT), 2),
    ((BRAND, PRODUCT, SIZE), 3),
    ((BRAND, ATTR1, PRODUCT, SIZE), 2),
)
# In which order the named slots are typed, and how often.
ORDERS = (
    ((BRAND, ATTR1, ATTR2, PRODUCT, SIZE), 80),
    ((ATTR1, ATTR2, BRAND, PRODUCT, SIZE), 5),
    ((PRODUCT, BRAND, ATTR1, ATTR2, SIZE), 5),
    ((PRODUCT, ATTR1, ATTR2, SIZE, BRAND), 3),
    ((BRAND, PRODUCT, ATTR1, ATTR2, SIZE), 5),
    ((SIZE, BRAND, ATTR1, ATTR2, PRODUCT), 2),
)
ROUNDS = 10  # of drawing until enough rows differ; enough for any shop the words can fill
STRAY_BRAND = 4  # in a hundred: a brand asked for something it may not make

LOG_START = np.datetime64("2026-01-05T00:00:00", "s")  # a Monday
LOG_CHUNK = 1_000_000
# Visits by hour of the day: quiet nights, a lunch and an evening peak.
HOURS = (2, 1, 1, 1, 1, 2, 4, 7, 9, 10, 11, 12, 13, 11, 10, 10, 11, 13, 15, 16, 14, 11, 7, 4)


@dataclass(frozen=True)
class Shop:
    """An invented shop.

    catalogue: id, title, brand, product, category (strings), attributes (list of strings).
    pool: distinct queries in normal form, most frequent first, with their gold slots: query,
        product, brand ("" where the query names none), attributes in the order the query names them.
    """

    catalogue: pa.Table
    pool: pa.Table


@dataclass(frozen=True)
class _Groups:
    """Weighted items in consecutive groups; draws one item of each group asked for."""

    upto: np.ndarray  # running sum of the weights of all items
    before: np.ndarray  # by group: the running sum before its first item
    total: np.ndarray  # by group: its own weight, 0 when it is empty

    @staticmethod
    def of(weights: list[list[int]]) -> "_Groups":
        flat = np.array([w for group in weights for w in group], np.int64)
        total = np.array([sum(group) for group in weights], np.int64)
        return _Groups(np.cumsum(flat), np.cumsum(total) - total, total)

    def draw(self, rng: np.random.Generator, groups: np.ndarray) -> np.ndarray:
        """The index, among all items, of one item for each group number; -1 for an empty group."""
        total = self.total[groups]
        at = self.before[groups] + rng.integers(0, np.maximum(total, 1))
        return np.where(total > 0, np.searchsorted(self.upto, at, side="right"), -1)


@dataclass(frozen=True)
class _Stock:
    """The catalogue as term numbers: products first, then attributes, then brands."""

    terms: list[str]
    category: np.ndarray
    brand: np.ndarray
    product: np.ndarray
    attributes: np.ndarray  # [rows, 4]: diet, form, flavour, size; -1 where there is none


def make_shop(
    seed: int = 7, side: Side = "demo", brands: int = 150, products: int = 3000, queries: int = 12_000
) -> Shop:
    """A shop with that many brands, catalogue rows and distinct queries."""
    rng = np.random.Generator(np.random.PCG64(seed))
    names = brand_names(side, brands, seed)
    stock = _make_stock(names, products, rng)
    return Shop(_catalogue(stock), _make_pool(stock, queries, rng))


def make_log(shop: Shop, rows: int, seed: int = 7, days: int = 7) -> pa.Table:
    """A raw query log of exactly `rows` rows, by time: time (timestamp[s]), session, query as typed.

    A query's share falls with its rank in the pool, as 1 / (rank + 3): few queries make the head.
    """
    rng = np.random.Generator(np.random.PCG64(seed))
    count = shop.pool.num_rows
    upto = np.cumsum((1 << 40) // np.arange(4, count + 4))
    typed = _as_typed(shop.pool["query"])
    chunks = []
    for first in range(0, rows, LOG_CHUNK):
        row = np.arange(first, min(first + LOG_CHUNK, rows))
        rank = np.searchsorted(upto, rng.integers(0, upto[-1], size=len(row)), side="right")
        # In a hundred: 92 as they are, 5 in capitals, 3 with stray spaces.
        way = np.searchsorted((92, 95, 97, 98, 99), rng.integers(0, 100, size=len(row)), side="right")
        session = (row + rng.integers(0, 12, size=len(row))) // 3  # neighbours in time interleave
        chunks.append(
            pa.table(
                {
                    "time": pa.array(_times(row, rows, days), pa.timestamp("s")),
                    "session": pa.array(session, pa.int64()),
                    "query": typed.take(pa.array(way * count + rank)),
                }
            )
        )
    schema = pa.schema([("time", pa.timestamp("s")), ("session", pa.int64()), ("query", pa.string())])
    return pa.concat_tables(chunks) if chunks else schema.empty_table()


def _make_stock(names: list[str], rows: int, rng: np.random.Generator) -> _Stock:
    """Draw the catalogue: each brand on one to three shelves, popular brands with more rows."""
    if rows < len(names):
        raise ValueError(f"wanted at least one product a brand; got {rows} products for {len(names)} brands")
    terms = [*PRODUCTS, *ATTRIBUTES, *names]
    number = {term: i for i, term in enumerate(terms)}
    shelves = rng.integers(0, len(CATEGORIES), size=(len(names), 3))
    shelves[:, 0] = (np.arange(len(names)) + rng.integers(len(CATEGORIES))) % len(CATEGORIES)
    width = rng.integers(1, 4, size=len(names))
    by_brand = _Groups.of([[10**9 // (rank + 12) for rank in range(len(names))]])
    ranks = [_shuffled(len(c.products), rng).tolist() for c in CATEGORIES]
    by_shelf = _Groups.of([[10**9 // (rank + 3) for rank in shelf] for shelf in ranks])
    kinds = [kind for c in CATEGORIES for kind in (c.diets, c.forms, c.flavours, c.sizes)]
    by_kind = _Groups.of([[60 // (rank + 2) for rank in range(len(kind))] for kind in kinds])
    term_of = np.array([number[a] for kind in kinds for a in kind])

    found = np.empty((0, 7), np.int64)
    for _ in range(ROUNDS):
        fresh = np.concatenate([np.arange(len(names)), by_brand.draw(rng, np.zeros(2 * rows, np.int64))])
        if len(found):
            fresh = fresh[len(names) :]  # the first round gave every brand its row
        shelf = shelves[fresh, rng.integers(0, width[fresh])]
        product = by_shelf.draw(rng, shelf)  # products are numbered shelf by shelf
        columns = [fresh, shelf, product]
        for kind, share in enumerate((45, 40, 35, 90)):
            item = by_kind.draw(rng, shelf * 4 + kind)
            wanted = (item >= 0) & (rng.integers(0, 100, size=len(shelf)) < share)
            columns.append(np.where(wanted, term_of[item], -1))
        found = _distinct_rows(np.concatenate([found, np.stack(columns, axis=1)]), len(terms) + 1)
        if len(found) >= rows:
            found = found[:rows]
            first_brand = len(terms) - len(names)
            return _Stock(terms, found[:, 1], found[:, 0] + first_brand, found[:, 2], found[:, 3:])
    raise ValueError(f"{len(names)} brands cannot carry {rows} different products; ask for more brands")


def _distinct_rows(table: np.ndarray, base: int) -> np.ndarray:
    """The rows of an integer table that differ, in the order they first came.

    Two keys, as all columns together may not fit one 64-bit number.
    """
    left = (table[:, 0] * base + table[:, 2]) * len(CATEGORIES) + table[:, 1]
    right = np.zeros(len(table), np.int64)
    for column in range(3, table.shape[1]):
        right = right * base + table[:, column] + 1
    _, first = np.unique(_codes(left) * len(table) + _codes(right), return_index=True)
    distinct: np.ndarray = table[np.sort(first)]
    return distinct


def _catalogue(stock: _Stock) -> pa.Table:
    """The stock as the shop shows it; the title is brand, attributes, product, size."""
    terms = pa.array([*stock.terms, None])  # so that -1 + len finds a null
    count = len(stock.brand)
    diet, form, flavour, size = (_take(terms, stock.attributes[:, k]) for k in range(4))
    brand, product = _take(terms, stock.brand), _take(terms, stock.product)
    title = pc.binary_join_element_wise(brand, diet, form, flavour, product, size, " ", null_handling="skip")
    categories = pa.array([c.name for c in CATEGORIES])
    digits = pc.utf8_lpad(pa.array(np.arange(1, count + 1)).cast(pa.string()), 7, "0")
    return pa.table(
        {
            "id": pc.binary_join_element_wise("p", digits, ""),
            "title": pc.utf8_title(title),
            "brand": brand,
            "product": product,
            "category": categories.take(pa.array(stock.category)),
            "attributes": _lists(terms, stock.attributes),
        }
    )


def _make_pool(stock: _Stock, queries: int, rng: np.random.Generator) -> pa.Table:
    """Draw queries until that many differ; rank them by how often they were drawn.

    When one text was drawn for two intents, the more frequent intent is the gold. Ties in
    frequency go to the shorter text, as the short and clean ones are the frequent ones.
    """
    first_brand = len(PRODUCTS) + len(ATTRIBUTES)
    taken = frozenset(stock.terms)
    spelled = [
        surfaces(term, "product" if i < len(PRODUCTS) else "attribute" if i < first_brand else "brand", rng, taken)
        for i, term in enumerate(stock.terms)
    ]
    forms = pa.array([form for group in spelled for form, _ in group] + [None])
    by_term = _Groups.of([[weight for _, weight in group] for group in spelled])
    popularity = _shuffled(len(stock.brand), rng)
    by_row = np.cumsum(10**12 // (popularity + 20))

    typed, intents = [], []
    for _ in range(ROUNDS):
        slots = _draw_slots(stock, by_row, 2 * queries, rng)
        typed.append(_type_out(slots, forms, by_term, rng))
        intents.append(slots)
        texts = pa.chunked_array(typed).combine_chunks().dictionary_encode()
        if len(texts.dictionary) >= queries:
            return _rank(texts, np.concatenate(intents), stock, queries)
    raise ValueError(f"this catalogue does not give {queries} different queries; ask for fewer or for more products")


def _draw_slots(stock: _Stock, by_row: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    """[count, 5] term numbers in the order they are typed, -1 where a slot is not named."""
    row = np.searchsorted(by_row, rng.integers(0, by_row[-1], size=count), side="right")
    other = rng.integers(0, len(stock.brand), size=count)
    brand_row = np.where(rng.integers(0, 100, size=count) < STRAY_BRAND, other, row)
    # Any of the row's attributes may be the one named, so the absent ones go last, turned by chance.
    attributes = stock.attributes[row, :3]
    turn = (np.arange(3) + rng.integers(0, 3, size=count)[:, None]) % 3
    attributes = np.take_along_axis(attributes, turn, axis=1)
    attributes = np.take_along_axis(attributes, np.argsort(attributes < 0, axis=1, kind="stable"), axis=1)
    slots = np.stack(
        [stock.brand[brand_row], attributes[:, 0], attributes[:, 1], stock.product[row], stock.attributes[row, 3]],
        axis=1,
    )
    shape = _weighted([weight for _, weight in SHAPES], count, rng)
    named = np.array([[slot in shape for slot in range(5)] for shape, _ in SHAPES])
    slots = np.where(named[shape], slots, -1)
    empty = (slots < 0).all(axis=1)  # an attribute alone, of a row that has none
    slots[empty, PRODUCT] = stock.product[row[empty]]
    order = _weighted([weight for _, weight in ORDERS], count, rng)
    return np.take_along_axis(slots, np.array([order for order, _ in ORDERS])[order], axis=1)


def _type_out(slots: np.ndarray, forms: pa.Array, by_term: _Groups, rng: np.random.Generator) -> pa.Array:
    """The text of each row of slots, each term in a spelling drawn for it."""
    columns = []
    for column in slots.T:
        form = by_term.draw(rng, np.maximum(column, 0))
        columns.append(_take(forms, np.where(column < 0, -1, form)))
    return pc.binary_join_element_wise(*columns, " ", null_handling="skip")


def _rank(texts: pa.DictionaryArray, slots: np.ndarray, stock: _Stock, queries: int) -> pa.Table:
    """One row a distinct text, the most frequent first, with its most frequent intent as gold.

    Dictionary codes come in order of first appearance, so the first `queries` codes are the
    first `queries` different texts drawn.
    """
    code = texts.indices.to_numpy().astype(np.int64)
    slots, code = slots[code < queries], code[code < queries]
    intent = np.zeros(len(code), np.int64)
    for column in slots.T:
        intent = _codes(intent * (len(stock.terms) + 1) + column + 1)
    pair, first, count = np.unique(code * len(code) + intent, return_index=True, return_counts=True)
    pair_code = pair // len(code)
    # By text; in a text the most frequent intent first, the earlier drawn of two equal ones.
    best = np.lexsort((first, -count, pair_code))
    best = best[np.unique(pair_code[best], return_index=True)[1]]

    traffic = np.bincount(code, minlength=queries)
    query = texts.dictionary[:queries]
    length = pc.utf8_length(query).to_numpy()
    order = np.lexsort((np.arange(queries), length, -traffic))
    gold = slots[first[best]][order]
    terms = pa.array([*stock.terms, None])
    first_brand = len(PRODUCTS) + len(ATTRIBUTES)
    is_product = (gold >= 0) & (gold < len(PRODUCTS))
    is_brand = gold >= first_brand
    return pa.table(
        {
            "query": query.take(pa.array(order)),
            "product": _only(terms, gold, is_product),
            "brand": _only(terms, gold, is_brand),
            "attributes": _lists(terms, np.where(is_product | is_brand, -1, gold)),
        }
    )


def _codes(keys: np.ndarray) -> np.ndarray:
    """Equal keys as equal small numbers, 0, 1, 2, ... as they first come."""
    codes: np.ndarray = pa.array(keys).dictionary_encode().indices.to_numpy().astype(np.int64)
    return codes


def _only(terms: pa.Array, numbers: np.ndarray, wanted: np.ndarray) -> pa.Array:
    """The one wanted term of each row, "" where there is none."""
    return _take(terms, np.where(wanted, numbers, -1).max(axis=1)).fill_null("")


def _lists(terms: pa.Array, numbers: np.ndarray) -> pa.ListArray:
    """[rows, k] term numbers as lists of terms, left to right, without the -1s."""
    present = numbers >= 0
    offsets = np.concatenate([[0], np.cumsum(present.sum(axis=1))])
    return pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), _take(terms, numbers[present]))


def _take(values: pa.Array, at: np.ndarray) -> pa.Array:
    """values[at], where -1 finds the null that `values` ends with."""
    return values.take(pa.array(np.where(at < 0, len(values) - 1, at)))


def _weighted(weights: list[int], count: int, rng: np.random.Generator) -> np.ndarray:
    """`count` indices drawn in proportion to integer weights."""
    upto = np.cumsum(weights)
    return np.searchsorted(upto, rng.integers(0, upto[-1], size=count), side="right")


def _shuffled(count: int, rng: np.random.Generator) -> np.ndarray:
    """0 .. count-1 in random order, by integer draws and a stable sort."""
    return np.argsort(rng.integers(0, 1 << 62, size=count), kind="stable")


def _as_typed(queries: pa.ChunkedArray) -> pa.Array:
    """Six ways to type each query: as it is, Title Case, UPPER, and three with stray spaces.

    Way w of query i stands at w * len(queries) + i.
    """
    plain = queries.combine_chunks()
    doubled = pc.replace_substring(plain, " ", "  ")
    ways = [
        plain,
        pc.utf8_title(plain),
        pc.utf8_upper(plain),
        pc.binary_join_element_wise("", plain, " "),
        pc.binary_join_element_wise(plain, "", " "),
        pc.binary_join_element_wise(doubled, "", " "),
    ]
    return pa.concat_arrays(ways)


def _times(row: np.ndarray, rows: int, days: int) -> np.ndarray:
    """When each of the rows, numbered by time, was typed: evenly through the busy hours' weights."""
    upto = np.cumsum(np.tile(np.array(HOURS, np.int64), days))
    at = row * (upto[-1] * 3600) // rows
    hour = np.searchsorted(upto, at // 3600, side="right")
    weight = np.array(HOURS)[hour % 24]
    second = (at - (upto[hour] - weight) * 3600) // weight
    times: np.ndarray = LOG_START + (hour * 3600 + second).astype("timedelta64[s]")
    return times
