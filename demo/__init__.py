"""The invented grocery shop: its catalogue, its query log and the gold answers nobody may train on.

`words` and `brands` are the vocabulary, `surfaces` is how shoppers type it, `shop` puts them
together, `write` puts the result on disk. The same seed gives the same shop on every machine.
"""
