"""Label -> answer: choosing the head, publishing a generation to Redis, lookup (cache, then student), its HTTP service.

Of our rooms it imports the ground floor alone; the student comes in as a small Protocol that flows fill in.
"""
