"""The messages a model is shown for one query: the same function for teacher, training and serving.

The shared instruction comes first, so that the engine's prefix cache computes it once; then facts; the query last.
Queries and facts are hostile data: escaped, so that they can close no tag and spell no special token.
"""

from collections.abc import Sequence

from labels.task import Task

Message = dict[str, str]


def messages(task: type[Task], query: str, facts: Sequence[str] = ()) -> list[Message]:
    """The chat messages for `query` (in normal form), shown `facts` best first."""
    shown = "".join(f"{_escape(fact)}\n" for fact in facts)
    user = (f"<facts>\n{shown}</facts>" if facts else "") + f"<query>{_escape(query)}</query>"
    return [{"role": "system", "content": task.instruction()}, {"role": "user", "content": user}]


def _escape(text: str) -> str:
    """Every special token of a chat template and every tag holds a `<` or `[`; here none survives as one."""
    return text.replace("<", "‹").replace(">", "›").replace("[", "(").replace("]", ")").replace("\n", " ")
