"""The tiny models' tokenizer: byte-level BPE of 2,048 tokens, shared by teacher and student as Llama 3.1's is.

The answer's JSON scaffolding is registered as single tokens (8 tokens an answer instead of 15), and so are the
prompt's tags. `add_prefix_space` gives a word the same tokens in a query, a fact and an answer.
"""

from collections.abc import Iterable, Sequence

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from labels.task import Task

VOCABULARY = 2048
BOS, EOT, PAD = "<|begin_of_text|>", "<|eot_id|>", "<|pad|>"
ROLES = ["<|system|>", "<|user|>", "<|assistant|>"]
TAGS = ["<facts>", "</facts>", "<query>", "</query>", "\n"]
TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}<|{{ message['role'] }}|>{{ message['content'] }}<|eot_id|>"
    "{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


def train_tokenizer(texts: Iterable[str], tasks: Sequence[type[Task]]) -> PreTrainedTokenizerFast:
    """A tokenizer trained on `texts`, with the scaffolding of `tasks`' answers as tokens of their own."""
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    bpe.decoder = decoders.ByteLevel()
    special = [BOS, EOT, PAD, *ROLES]
    plain = TAGS + list(dict.fromkeys(piece for task in tasks for piece in scaffolding(task)))
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY - len(plain),
        special_tokens=special,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    bpe.train_from_iterator(texts, trainer)
    bpe.add_tokens([AddedToken(piece, normalized=False) for piece in plain])
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=bpe, bos_token=BOS, eos_token=EOT, pad_token=PAD, model_max_length=2048
    )
    tokenizer.chat_template = TEMPLATE
    return tokenizer


def scaffolding(task: type[Task]) -> list[str]:
    """The constant pieces between the values of a task's compact JSON."""
    pieces, opening = [], "{"
    for name in task.model_fields:
        several = task.is_list(name)
        pieces.append(f'{opening}"{name}":' + ('["' if several else '"'))
        if several:
            pieces += ['","', f'{opening}"{name}":[]']
        opening = '"],' if several else '",'
    pieces.append(opening[:-1] + "}")
    last = list(task.model_fields)[-1]
    if task.is_list(last):
        pieces.append(pieces[-2] + "}")
    return pieces
