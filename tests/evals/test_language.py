import time
from collections import Counter

from evals.language import LEAST, OTHER, UNSURE, languages

ENGLISH = "oat milk|running shoes for women|black leather handbag|cast iron skillet|kids winter jacket|garden hose reel"
FRENCH = (
    "chaussures de course pour femme|sac à main en cuir noir|poêle en fonte|veste d'hiver pour enfants|tuyau d'arrosage"
)
JAPANESE = "赤い靴|黒い革のバッグ|子供用の冬のジャケット"


def some(text, times):
    return text.split("|") * times


def test_the_log_as_a_whole_tells_what_three_words_do_not():
    english, french, japanese = some(ENGLISH, 60), some(FRENCH, 20), some(JAPANESE, 10)
    found = languages([*english, *french, *japanese])
    told = Counter(found[: len(english)])
    assert told["en"] / len(english) > 0.8
    assert told.keys() <= {"en", UNSURE}
    assert Counter(found[len(english) : -len(japanese)])["fr"] / len(french) > 0.6
    assert set(found[-len(japanese) :]) == {"ja"}


def test_a_language_of_few_queries_is_put_with_the_others_like_it():
    found = languages([*some(ENGLISH, 60), *some(JAPANESE, 1)])
    assert len(some(JAPANESE, 1)) < LEAST
    assert set(found[-3:]) == {OTHER}


def test_what_holds_no_word_is_no_error():
    assert len(languages(["", "1234", "<|eot_id|>", "\ufffd"])) == 4
    assert languages([]) == []


def test_a_thousand_queries_take_no_time_to_speak_of():
    start = time.process_time()
    languages([f"{query} {number}" for number in range(200) for query in ENGLISH.split("|")[:5]])
    assert time.process_time() - start < 2
