"""The record: what a query, a label, a verdict, a task and a guardrail is; normalising; the warehouse.

The ground floor: it imports no other room, and neither torch, vLLM nor FAISS.
"""
