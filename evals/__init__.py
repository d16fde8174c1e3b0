"""How good, and says who: the sample for people, their judgement, metrics, the gate, the report.

Of the other rooms it imports the ground floor (`labels`) alone.
"""
