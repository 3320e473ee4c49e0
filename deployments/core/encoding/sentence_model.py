"""Loads models with sentence-transformers and takes their tokenizers out."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from deployments.core.encoding.text_encoder import TextKind
from deployments.core.encoding.text_tokenizer import TextTokenizer
from deployments.core.errors import ModelError, SettingsError

NO_LIMIT = 1_000_000
"""Token limit of models that have none."""

_PROBES = (
    "short",
    "",
    "  surrounded by\twhite space\n",
    "A sentence, with Punctuation & ümläuts: 你好 12,345.6!",
    "repeated words beyond any limit " * 4000,
)


def load_sentence_model(folder: Path, device: str, **arguments: Any) -> Any:
    """The SentenceTransformer in a folder, ready to encode, on "auto" or a torch device.

    Nothing is downloaded and no code of the model's is run. Raises SettingsError if the device
    doesn't exist here, ModelError if the model can't be loaded.
    """
    import torch
    from sentence_transformers import SentenceTransformer

    if device != "auto":
        try:
            torch.empty(1, device=device)
        except (RuntimeError, AssertionError) as error:
            reason = str(error).splitlines()[0]
            raise SettingsError(f"the device {device!r} can't be used here: {reason}") from error
    try:
        model = SentenceTransformer(
            str(folder),
            device=None if device == "auto" else device,
            local_files_only=True,
            **arguments,
        )
    except Exception as error:
        raise ModelError(
            f"the model in {folder} can't be loaded: {type(error).__name__}: {error}"
        ) from error
    return model.eval()


def model_prompts(model: Any) -> dict[TextKind, str]:
    """The prompts that encode_query and encode_document use."""
    return {
        "query": model.prompts.get("query") or "",
        "document": model.prompts.get("document") or "",
    }


def model_max_tokens(model: Any) -> int:
    """The most tokens of a text, NO_LIMIT if there is none."""
    return int(min(model.max_seq_length or NO_LIMIT, NO_LIMIT))


def depends_on_kind(model: Any) -> bool:
    """Whether equal token ids of a query and of a document can have different vectors."""
    from sentence_transformers.base.modules import Router
    from sentence_transformers.sentence_transformer.modules import Pooling

    return any(
        isinstance(module, Router)
        or "task" in getattr(module, "forward_kwargs", ())
        or (isinstance(module, Pooling) and not module.include_prompt)
        for module in model
    )


def model_tokenizer(model: Any) -> TextTokenizer | None:
    """The model's own tokenizer, None if only sentence-transformers can make its inputs.

    Checked on probes: what comes out must be exactly what sentence-transformers would feed the
    model, so chat templates, query expansion, token types and the like are all excluded.
    """
    from sentence_transformers.base.modules import Transformer
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerFast

    if not isinstance(model[0], Transformer) or depends_on_kind(model):
        return None
    fast = model[0].tokenizer
    if not isinstance(fast, PreTrainedTokenizerFast) or fast.pad_token_id is None:
        return None
    tokenizer = TextTokenizer(
        Tokenizer.from_str(fast.backend_tokenizer.to_str()),
        max_tokens=model_max_tokens(model),
        prompts=model_prompts(model),
        pad_id=fast.pad_token_id,
        pad_left=fast.padding_side == "left",
        truncate_left=fast.truncation_side == "left",
    )
    kinds: tuple[TextKind, ...] = ("query", "document")
    return tokenizer if all(_feeds_the_same(model, tokenizer, kind) for kind in kinds) else None


def _feeds_the_same(model: Any, tokenizer: TextTokenizer, kind: TextKind) -> bool:
    import torch

    prompt = model_prompts(model)[kind]
    probes = [probe[: 40 * tokenizer.max_tokens] for probe in _PROBES]
    wanted = model.preprocess(probes, prompt=prompt, task=kind)
    ids, mask = tokenizer.pad(tokenizer.tokenize(probes, kind))
    if wanted.get("modality", "text") != "text" or "task" in wanted:
        return False
    made = {"input_ids": torch.from_numpy(ids), "attention_mask": torch.from_numpy(mask)}
    for name, tensor in wanted.items():
        if not isinstance(tensor, torch.Tensor):
            continue
        if name == "token_type_ids":
            # Models take all zeros for missing ones.
            if tensor.any():
                return False
        elif name not in made or not torch.equal(tensor.cpu(), made[name]):
            return False
    return True


def token_counter(model: Any, kind: TextKind) -> Callable[[str], tuple[tuple[int, ...], bool]]:
    """Token ids of a text, and whether it is cut, for models without a `model_tokenizer`.

    Good for estimating costs. Words stand for tokens where the model has no fast tokenizer.
    """
    from sentence_transformers.base.modules import Router
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerFast

    module = model[0]
    if isinstance(module, Router):
        module = module.sub_modules[module._resolve_route(task=kind)][0]
    tokenizer = getattr(module, "tokenizer", None)
    if isinstance(tokenizer, PreTrainedTokenizerFast):
        tokenizer = tokenizer.backend_tokenizer
    if not isinstance(tokenizer, Tokenizer):
        return lambda text: ((0,) * max(1, len(text.split())), False)
    counting = TextTokenizer(
        Tokenizer.from_str(tokenizer.to_str()),
        max_tokens=int(min(getattr(module, "max_seq_length", None) or NO_LIMIT, NO_LIMIT)),
        prompts={},
        pad_id=0,
    )

    def count(text: str) -> tuple[tuple[int, ...], bool]:
        tokens = counting.tokenize([text], kind)[0]
        return tokens.ids or (0,), tokens.truncated

    return count
