"""What a user would run instead, on the same shapes as `patarm bench`: PyTorch,
transformers and TRL on random weights of SmolLM2-135M's shape. Prints one JSON object.

    python benches/peers/peer.py train --precision bf16

Lengths are forced, the first steps are not counted, medians are reported. Training
keeps f32 master weights (bf16 by autocast); inference in bf16 holds bf16 weights.
"""

import argparse
import json
import resource
import statistics
import time

import torch
import transformers

transformers.logging.set_verbosity_error()

VOCAB = 49_152


def shape(**changes):
    """config.json of HuggingFaceTB/SmolLM2-135M-Instruct, as far as it matters here."""
    return transformers.LlamaConfig(
        hidden_size=576,
        intermediate_size=1_536,
        num_hidden_layers=30,
        num_attention_heads=9,
        num_key_value_heads=3,
        vocab_size=VOCAB,
        max_position_embeddings=8_192,
        rope_theta=1e5,
        rms_norm_eps=1e-5,
        tie_word_embeddings=True,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=2,
        **changes,
    )


def median_of(repeats, warm_up, act):
    for _ in range(warm_up):
        act()
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        act()
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds)


def inference_dtype(options):
    return torch.bfloat16 if options.precision == "bf16" else torch.float32


def autocast(options):
    return torch.autocast("cpu", dtype=torch.bfloat16, enabled=options.precision == "bf16")


def train(options):
    model = transformers.LlamaForCausalLM(shape()).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5, fused=True)
    ids = torch.randint(3, VOCAB, (options.rows or 4, options.length or 512))
    forward = torch.compile(model) if options.compile else model

    def step():
        with autocast(options):
            loss = forward(input_ids=ids, labels=ids, use_cache=False).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=False)

    seconds = median_of(options.repeats, 2, step)
    return {"seconds": seconds, "tokens": ids.numel()}


@torch.inference_mode()
def rollout(options):
    model = transformers.LlamaForCausalLM(shape()).eval().to(inference_dtype(options))
    rows, length = options.rows or 32, options.length or 64
    ids = torch.randint(3, VOCAB, (rows, options.prompt or 256))

    def generate(new):
        return model.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            do_sample=True,
            top_k=0,
            min_new_tokens=new,
            max_new_tokens=new,
        )

    whole = median_of(options.repeats, 1, lambda: generate(length))
    first = median_of(options.repeats, 0, lambda: generate(1))
    decode = rows * (length - 1) / (whole - first)
    return {
        "seconds": whole,
        "tokens": rows * length,
        "prefill_seconds": first,
        "decode_tokens_per_s": decode,
    }


def scorer(options):
    config = shape(num_labels=1)
    model = transformers.LlamaForSequenceClassification(config)
    return model.eval().to(inference_dtype(options))


@torch.inference_mode()
def score(options):
    """256 texts of 20 to 1,000 tokens, sorted by length, in batches of 64; with
    --prompt, 8 responses below each of 32 prompts, as rows."""
    model = scorer(options)
    generator = torch.Generator().manual_seed(1)
    if options.prompt:
        lengths = [options.prompt + (options.length or 150)] * ((options.rows or 32) * 8)
    else:
        longest = options.length or 1_000
        draw = torch.randint(20, longest + 1, (options.rows or 256,), generator=generator)
        lengths = sorted(draw.tolist(), reverse=True)
    # Token 3 upward: the padding token never occurs inside a text.
    texts = [torch.randint(3, VOCAB, (n,), generator=generator) for n in lengths]

    def run():
        for at in range(0, len(texts), options.batch):
            rows = texts[at : at + options.batch]
            ids = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=2)
            mask = torch.arange(ids.shape[1])[None] < torch.tensor([len(row) for row in rows])[:, None]
            model(input_ids=ids, attention_mask=mask.long(), use_cache=False)

    seconds = median_of(options.repeats, 1, run)
    return {"seconds": seconds, "tokens": sum(lengths)}


def grpo(options):
    """One step of TRL's trainer: a judge prompt a response, 8 judgements each."""
    import datasets
    import trl

    pairs, judgement = options.rows or 2, options.length or 64
    prompt = (options.prompt or 400) + (options.response or 200)
    tokenizer = transformers.AutoTokenizer.from_pretrained(
        options.tokenizer_folder, gguf_file=options.tokenizer_file
    )
    word = " the"
    assert len(tokenizer(word * prompt)["input_ids"]) == prompt
    rows = datasets.Dataset.from_dict({"prompt": [word * prompt] * (2 * pairs * 8)})
    arguments = trl.GRPOConfig(
        output_dir=options.scratch,
        # All judgements are drawn at once; learned from in one batch they need more than 24 GiB.
        per_device_train_batch_size=8,
        gradient_accumulation_steps=2 * pairs,
        num_generations=8,
        max_completion_length=judgement,
        generation_kwargs={"min_new_tokens": judgement},
        max_steps=1 + options.repeats,
        bf16=options.precision == "bf16",
        use_cpu=True,
        gradient_checkpointing=False,
        report_to=[],
        save_strategy="no",
        logging_strategy="no",
        disable_tqdm=True,
    )
    marks = []

    class Clock(transformers.TrainerCallback):
        def on_step_begin(self, *_, **__):
            marks.append(time.perf_counter())

        def on_step_end(self, *_, **__):
            marks.append(time.perf_counter())

    trainer = trl.GRPOTrainer(
        model=transformers.LlamaForCausalLM(shape()),
        reward_funcs=lambda completions, **_: [float(len(text) % 7) for text in completions],
        args=arguments,
        train_dataset=rows,
        processing_class=tokenizer,
        callbacks=[Clock()],
    )
    trainer.train()
    steps = [end - begin for begin, end in zip(marks[::2], marks[1::2])]
    counted = steps[1:] or steps
    return {"seconds": statistics.median(counted), "tokens": 2 * pairs * 8 * (prompt + judgement)}


def arguments():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=["train", "rollout", "score", "grpo"])
    parser.add_argument("--precision", choices=["f32", "bf16"], default="bf16")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=3)
    for size in ["rows", "length", "prompt", "response"]:
        parser.add_argument(f"--{size}", type=int, default=0)
    parser.add_argument("--batch", type=int, default=64, help="rows of a scoring batch")
    parser.add_argument("--compile", action="store_true", help="torch.compile the training step")
    parser.add_argument("--tokenizer-folder", help="folder of the packaged GGUF (grpo)")
    parser.add_argument("--tokenizer-file", default="SmolLM2-135M-Instruct.Q4_1.gguf")
    parser.add_argument("--scratch", default="target/peers", help="folder TRL may write to")
    return parser.parse_args()


def main():
    options = arguments()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    work = {"train": train, "rollout": rollout, "score": score, "grpo": grpo}[options.what]
    result = work(options)
    result |= {
        "what": options.what,
        "precision": options.precision,
        "threads": options.threads,
        "tokens_per_s": result["tokens"] / result["seconds"],
        "peak_memory_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        "versions": {"torch": torch.__version__, "transformers": transformers.__version__},
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
