"""The process in which llama.cpp runs a GGUF file: a fault of it ends this process alone.

A line of JSON on stdin, `{"file", "context", "prompts", "text", "tokens", "threads"}`, is answered by one on stdout: for every
prompt, a list of token ids, its greedy continuation `[[id, log-probability], ...]`, and how many tokens the text is. llama.cpp
reports no log-probability of a token that ends within a character, and the others of such a continuation cannot be told apart:
all of them are null then. The process ends when its stdin does.
"""

from __future__ import annotations

import json
import os
import sys
import threading
from typing import Any


def until_the_end() -> None:
    """End this process when the one that started it has ended."""
    sys.stdin.read()
    os._exit(1)


def answer(request: dict[str, Any]) -> dict[str, Any]:
    """Run the file. RuntimeError where llama.cpp refuses it, or a prompt."""
    import xllamacpp

    params = xllamacpp.CommonParams()
    params.model.path = request["file"]
    params.n_ctx, params.n_parallel, params.n_gpu_layers = request["context"], 1, 0
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = request["threads"]
    params.warmup, params.fit_params, params.verbosity = False, False, -1
    params.flash_attn_type = xllamacpp.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_DISABLED
    params.cache_type_k = params.cache_type_v = xllamacpp.ggml_type.GGML_TYPE_F32
    server = xllamacpp.Server(params)

    def complete(prompt: object, tokens: int) -> Any:
        wanted = {"prompt": prompt, "max_tokens": tokens, "temperature": 0.0, "logprobs": 1, "cache_prompt": False}
        wanted |= {"verbose": True, "return_tokens": True}
        given = server.handle_completions(wanted)
        if "error" in given:
            raise RuntimeError(given["error"].get("message", "a prompt is refused"))
        return given

    continuations = []
    for prompt in request["prompts"]:
        given = complete(prompt, request["tokens"])
        tokens = given["__verbose"]["tokens"]
        content = (given["choices"][0].get("logprobs") or {}).get("content", [])
        known = [each["id"] for each in content] == tokens
        continuations.append([[token, content[place]["logprob"] if known else None] for place, token in enumerate(tokens)])
    return {"continuations": continuations, "text_tokens": complete(request["text"], 1)["usage"]["prompt_tokens"]}


if __name__ == "__main__":
    question = json.loads(sys.stdin.readline())
    threading.Thread(target=until_the_end, daemon=True).start()
    out = os.dup(1)  # what libraries print on stdout goes to stderr
    os.dup2(2, 1)
    answered = json.dumps(answer(question))
    os.write(out, answered.encode())
    os._exit(0)  # without waiting for the server's threads
