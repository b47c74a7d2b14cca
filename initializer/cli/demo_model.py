"""A tiny Llama with random weights (3 MB), generated locally, so that the demonstration needs no download."""

from __future__ import annotations

import shutil
import sys
import tempfile
from pathlib import Path

from phasebus.telemetry.folders import cache_folder

_LINES = (
    "A start-up is a stream of typed events.",
    "Subscribers steer it, observers watch it, and one command says where the time went.",
    "The quick brown fox jumps over the lazy dog.",
)


def tiny_model_path() -> Path:
    """Return the model's folder: below PHASEBUS_CACHE_DIR, or else in the user's cache folder (XDG)."""
    return cache_folder() / "tiny-llama"


def write_tiny_model(destination: Path) -> Path:
    """Write the model into the folder `destination` atomically, unless it exists.

    Two layers, hidden size 256, a vocabulary of at most 512 byte-level BPE tokens, bfloat16.
    """
    if (destination / "config.json").is_file():
        return destination
    destination.parent.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(prefix=f"{destination.name}.", dir=destination.parent))
    try:
        _write(work)
        for file in work.iterdir():
            file.chmod(0o644)  # safetensors makes its files readable for their owner only
        work.chmod(0o755)
        work.rename(destination)
    except OSError:
        if not (destination / "config.json").is_file():  # otherwise another process has written it
            raise
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return destination


def _write(folder: Path) -> None:
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=512,
        special_tokens=["<s>", "</s>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_LINES, trainer)
    wrapped = PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>")  # noqa: S106
    wrapped.save_pretrained(folder)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=512,
        hidden_size=256,
        intermediate_size=512,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=4,
        max_position_embeddings=512,
        bos_token_id=0,
        eos_token_id=1,
        dtype="bfloat16",
    )
    LlamaForCausalLM(config).to(torch.bfloat16).save_pretrained(folder)


if __name__ == "__main__":
    write_tiny_model(Path(sys.argv[1]))
