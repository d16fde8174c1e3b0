"""Brand names, in two worlds that share no brand word.

The tiny models learn on shops of the "pretraining" side and are used on the "demo" side. Every
brand word belongs to one side by a hash of its letters, and a brand holds at least one word of its
own side and none of the other's. So a demo brand is new to the models by construction, and only
the catalogue can tell them what it is. Both sides are spelled in the same mixture of styles; the
pretraining side also coins words with the letter statistics of the real ones, since a model shown
a few hundred words again and again learns these by heart instead of learning to copy.
"""

import hashlib
from typing import Literal

import numpy as np

from demo.words import ATTRIBUTES, PRODUCTS

Side = Literal["demo", "pretraining"]


def _words(text: str) -> list[str]:
    """A list written as one text, so that it stays readable."""
    return text.split()


ADJECTIVES = _words("""
able agile airy amber ample ancient arctic ardent artful astral atomic autumn balmy bashful beaming
blessed blissful bold bonny bouncy brave breezy bright brisk bubbly busy calm candid canny carefree
casual celtic charmed cheeky cheerful chief chirpy civic classic clever coastal colossal copper coral
cosmic cosy courtly crafty crimson curious dainty dandy dapper daring dashing dazzling dear deft
devoted dewy distant divine dreamy dusky dutiful eager earnest easy elder electric elegant emerald
endless epic equal eternal evening exotic fabled faithful famous fancy fearless feisty fiery flying
fond forest frank friendly frosty funny gallant gentle gifted giddy gilded glad gleaming gleeful
glorious glowing graceful grand grateful gritty groovy hallowed handsome handy happy hardy hasty
hazy hearty heroic hidden hollow homely honest hopeful humble hushed idle indigo inner iron ivory
jaunty jazzy jolly jovial joyful keen kind kindred lasting lavish lazy leafy little lively lofty
lone loyal lucid lucky lunar magic magnetic majestic marble mellow merry mighty mindful misty modest
moonlit mossy nautical neat nifty nimble noble nomadic northern oaken odd opal open orbital outer
outland pacific painted patient peaceful pearly perky placid playful plucky plush poetic polar polite
posh prairie precious prime proper proud quaint quick quiet quirky radiant rainy rambling rapid rare
regal restful robust roaming rosy royal ruby rugged rural rustic sacred sage sandy sassy savvy scarlet
secret serene shady sharp shiny silent silken silver simple sincere sleepy snappy snowy snug solar
solemn solid southern spirited spry stately steady stellar sterling stormy sturdy sublime sunken
sunny superb supreme swift tall tender thankful thrifty thriving tidal tidy timeless tiny tranquil
trusty twilight twin upbeat urban valiant vast velvet verdant vibrant violet vivid wandering warm
western whimsical wise witty wondrous woodland worthy young zany zealous zesty
""")

NOUNS = _words("""
abbey acorn acre anchor angel anvil arbor arch archer arrow atlas attic aurora badger banjo banner
barn baron basket bay beacon bear beaver bell bird bison blossom boat bonnet boulder branch bridge
brook bucket buffalo canyon cape caravan cardinal castle cedar chapel chariot chimney circle cliff
cloud coach cobbler comet compass cottage cove crane creek crest cricket crow crown dale daisy dawn
deer delta den dolphin dove dragon drum dune eagle earth echo elk elm ember empire engine falcon
feather fern field finch fjord flame flask flint forge fountain fox galaxy gate gazelle geyser giant
glacier glade glen goose gorge griffin grove guild gull hammer harbour hare hatch haven hawk hearth
heath hedge heron hill hive hollyhock horizon horn horse hut ibis igloo island ivy jackal jaguar
jetty jewel journey junction jungle kestrel kettle kingdom kite knight lagoon lake lantern lark
ledge legend lion llama lodge loft loom lotus lynx machine magpie mammoth manor meadow mermaid
mill mole monk moon moose moth mountain museum nest nomad oak oasis ocean orbit orchid osprey otter
owl ox palace panda parade parrot path pebble pelican penguin petal phoenix piano pier pilot pine
planet plateau plough pond poppy porch portal puffin quarry quest quill rabbit raft raven
reef ridge river robin rocket rook saddle sail sailor scout seal shed shepherd shore sky sparrow
spire spring squirrel stable star station stone stork storm stream summit swallow swan temple terrace
thicket thimble thistle tide tiger tower trail traveller treasure trumpet tunnel turtle vale valley
vault village vine voyage wagon walrus wand wave well whale wheel whistle willow wind wing wolf wren
yard yeti yonder zebra zephyr
""")

# Ordinary grocery words: brands of both sides use them, always beside a word of their own.
GROCERY = _words("""
oat almond honey green berry apple coconut cocoa bean leaf grain seed nut corn rice milk butter
cream sugar salt pepper spice herb mint basil thyme lemon lime cherry peach plum fig olive barley
wheat rye maple vanilla ginger pumpkin carrot beet clover garden farm kitchen dairy bakery harvest
pantry orchard golden fresh wild raw pure natural good daily market root crust crumb
""")

ONSETS = _words("b br c ch cl d dr f fl g gr h j k kr l m n p pl qu r s sh st t tr v w y z")
VOWELS = _words("a e i o u ai ee oo")
CODAS = _words("brim dell fenn gor hulm jax kiva lume moya nett olo pria quist rono sena tiva umi vex wyn yara")

# Words whose side matters to the documentation; every other word goes where its hash says.
_CHOSEN_SIDE: dict[str, Side] = {"verdant": "demo", "machine": "demo"}
_GROCERY = frozenset(GROCERY)
_TERMS = frozenset(PRODUCTS + ATTRIBUTES)
_TERM_WORDS = frozenset(word for term in PRODUCTS + ATTRIBUTES for word in term.split())
_DICTIONARY = frozenset(ADJECTIVES + NOUNS) | _GROCERY | _TERM_WORDS

# Style and its share in a hundred; a = adjective, n = noun, g = grocery word, i = invented word.
STYLES = (("i", 14), ("ig", 10), ("in", 6), ("an", 26), ("gn", 20), ("nn", 6), ("ag", 12), ("agn", 6))


COINED = 5
"""On the pretraining side, all but one in so many adjectives and nouns are coined."""


def side_of(word: str) -> Side | None:
    """The side that owns a brand word; None for a grocery word, which both may use."""
    if word in _GROCERY:
        return None
    if word in _CHOSEN_SIDE:
        return _CHOSEN_SIDE[word]
    return "demo" if hashlib.sha256(word.encode()).digest()[0] % 4 == 0 else "pretraining"


def brand_names(side: Side, count: int, seed: int) -> list[str]:
    """`count` distinct brands of one side, lower case, the same for the same seed.

    The demo side always opens with "verdant machine", the brand the documentation talks about.
    """
    rng = np.random.Generator(np.random.PCG64(seed))
    words = {
        "a": _owned(ADJECTIVES, side),
        "n": _owned(NOUNS, side),
        "g": GROCERY,
    }
    styles = [style for style, share in STYLES for _ in range(share)]
    names = {"verdant machine": None} if side == "demo" and count else {}
    while len(names) < count:
        style = styles[int(rng.integers(len(styles)))]
        parts = [_word(kind, words, side, rng) for kind in style]
        name = " ".join(parts)
        if len(set(parts)) == len(parts) and name not in _TERMS:
            names[name] = None
    return list(names)


def _owned(words: list[str], side: Side) -> list[str]:
    """The words of a list that belong to one side, none of them a word of a product or attribute."""
    return [w for w in dict.fromkeys(words) if side_of(w) == side and w not in _TERM_WORDS]


def _word(kind: str, words: dict[str, list[str]], side: Side, rng: np.random.Generator) -> str:
    if kind == "i":
        return _invented(side, rng)
    if kind != "g" and side == "pretraining" and rng.integers(COINED) > 0:
        return _coined(words[kind], side, rng)
    return words[kind][int(rng.integers(len(words[kind])))]


def _coined(like: list[str], side: Side, rng: np.random.Generator) -> str:
    """A word of one side spelled as the words in `like` are: each letter follows two as it does in one of them."""
    while True:
        word, more = "", True
        while more and len(word) < 11:
            for other in rng.permutation(like).tolist():  # the first word that has the last two letters in a row
                place = f"  {other} ".find(f"  {word}"[-2:], 1 if word else 0)
                if place >= 0:
                    letter = f"  {other} "[place + 2]
                    break
            more = letter != " "
            word += letter.strip()
        if len(word) > 3 and word not in _DICTIONARY and side_of(word) == side:
            return word


def _invented(side: Side, rng: np.random.Generator) -> str:
    """A made-up word of one side, such as "brimoya"; drawn until its hash says so."""
    while True:
        onset, vowel, coda, middle, shape = rng.integers(0, 1 << 30, size=5).tolist()
        word: str = ONSETS[onset % len(ONSETS)] + VOWELS[vowel % len(VOWELS)]
        if shape % 3 == 0:
            word += ONSETS[middle % len(ONSETS)] + VOWELS[middle // 64 % len(VOWELS)]
        word += CODAS[coda % len(CODAS)]
        if word not in _DICTIONARY and side_of(word) == side:
            return word
