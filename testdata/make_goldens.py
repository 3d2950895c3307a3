"""Makes the tiny models and golden values in this folder with PyTorch.

PyTorch, transformers and peft are the oracle of our tests, never a dependency:
this script is run by hand when a golden value is added, and what it writes is
committed. It needs no network. Usage, from the root of the repository:

    python testdata/make_goldens.py

What it writes is listed in testdata/README.md. Everything is float32 on one
CPU thread from fixed seeds, so that a second run with the same versions writes
the same bytes.
"""

import json
import math
import os
import random
from pathlib import Path

import torch
import transformers
from peft import LoraConfig, PeftModel, get_peft_model
from peft.utils import get_peft_model_state_dict
from safetensors.torch import save_file

HERE = Path(__file__).resolve().parent
MODELS = HERE / "models"
GOLDENS = HERE / "goldens"

# Shapes are small and differ from model to model; in tiny-qwen3 the heads together
# are wider than the model, so that no matrix of it is square and a transposed one
# cannot pass unseen.
COMMON = dict(
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=2,
    max_position_embeddings=256,
    bos_token_id=1,
    eos_token_id=2,
    pad_token_id=0,
    attention_dropout=0.0,
)
TINY = {
    "tiny-llama": transformers.LlamaConfig(
        hidden_size=32, intermediate_size=48, vocab_size=72, rms_norm_eps=1e-5,
        rope_parameters={"rope_type": "default", "rope_theta": 10000.0},
        tie_word_embeddings=True, **COMMON,
    ),
    "tiny-qwen2": transformers.Qwen2Config(
        hidden_size=40, intermediate_size=56, vocab_size=80, rms_norm_eps=1e-6,
        rope_parameters={"rope_type": "default", "rope_theta": 1000000.0},
        tie_word_embeddings=False, **COMMON,
    ),
    "tiny-qwen3": transformers.Qwen3Config(
        hidden_size=36, intermediate_size=52, vocab_size=88, head_dim=12, rms_norm_eps=1e-6,
        rope_parameters={"rope_type": "default", "rope_theta": 500000.0},
        tie_word_embeddings=True, **COMMON,
    ),
}
SEQUENCE_LENGTHS = (13, 7)


def write_json(path, value):
    path.write_text(json.dumps(value, indent=1) + "\n")


def randomise(model, generator):
    """Weights whose activations and gradients are of order one, none of them special."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            if "norm" in name:
                parameter.copy_(1.0 + 0.2 * noise)
            elif name.endswith(".bias"):
                parameter.copy_(0.3 * noise)
            elif "embed_tokens" in name or "lm_head" in name:
                parameter.copy_(0.4 * noise)
            else:
                parameter.copy_(noise / math.sqrt(parameter.shape[1]))


def make_sequences(vocab_size, generator):
    return [
        torch.randint(3, vocab_size, (length,), generator=generator).tolist()
        for length in SEQUENCE_LENGTHS
    ]


def run(model, sequences):
    """Logits and log-probabilities of every sequence, and the loss.

    The loss is the mean of the negative log-probabilities of all next tokens of
    all sequences together; sequences are run one by one, without padding.
    """
    logits, logprobs, total, count = [], [], 0.0, 0
    for ids in sequences:
        out = model(torch.tensor([ids])).logits[0]
        chosen = torch.log_softmax(out[:-1], -1)[torch.arange(len(ids) - 1), torch.tensor(ids[1:])]
        logits.append(out.detach())
        logprobs.append([None] + chosen.tolist())
        total = total - chosen.sum()
        count += len(ids) - 1
    return logits, logprobs, total / count


def golden(name, model, sequences, gradient_names):
    """Writes the golden files of one model.

    `gradient_names` maps the name of a parameter to the name under which its
    gradient is stored, or to None for a parameter without one.
    """
    model.zero_grad()
    logits, logprobs, loss = run(model, sequences)
    loss.backward()
    tensors = {f"logits.{i}": out.contiguous() for i, out in enumerate(logits)}
    for parameter_name, parameter in model.named_parameters():
        stored = gradient_names(parameter_name)
        if stored is None:
            continue
        assert parameter.grad is not None and parameter.grad.abs().max() > 1e-6, parameter_name
        tensors[f"grad.{stored}"] = parameter.grad.detach().clone().contiguous()
    save_file(tensors, GOLDENS / f"{name}.safetensors", metadata={"format": "pt"})
    write_json(
        GOLDENS / f"{name}.json",
        {"sequences": sequences, "logprobs": logprobs, "loss": loss.item()},
    )


def make_tiny_models():
    for seed, (name, config) in enumerate(TINY.items()):
        generator = torch.Generator().manual_seed(1000 + seed)
        config._attn_implementation = "eager"
        model = transformers.AutoModelForCausalLM.from_config(config).float().eval()
        randomise(model, generator)
        folder = MODELS / name
        model.save_pretrained(folder)
        # Loaded back, so that the golden values belong to what was saved.
        model = load(folder)
        golden(name, model, make_sequences(config.vocab_size, generator), lambda parameter: parameter)


def load(folder):
    return transformers.AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float32, attn_implementation="eager"
    ).eval()


def stored_lora_name(parameter_name):
    """The name of a LoRA matrix in adapter_model.safetensors; None for frozen weights."""
    return parameter_name.replace(".default.", ".") if "lora_" in parameter_name else None


def make_lora():
    generator = torch.Generator().manual_seed(2000)
    base = MODELS / "tiny-llama"
    config = LoraConfig(
        r=4, lora_alpha=8, lora_dropout=0.0, bias="none", task_type="CAUSAL_LM",
        # Sorted, because peft keeps them in a set whose order differs from run to run.
        target_modules=["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"],
    )
    model = get_peft_model(load(base), config)
    with torch.no_grad():
        for parameter_name, parameter in model.named_parameters():
            if "lora_" in parameter_name:
                parameter.copy_(0.15 * torch.randn(parameter.shape, generator=generator))
    folder = MODELS / "tiny-llama-lora"
    folder.mkdir(exist_ok=True)
    save_file(
        {key: tensor.contiguous() for key, tensor in get_peft_model_state_dict(model).items()},
        folder / "adapter_model.safetensors", metadata={"format": "pt"},
    )
    settings = model.peft_config["default"].to_dict()
    settings["base_model_name_or_path"] = "testdata/models/tiny-llama"
    settings["target_modules"] = sorted(settings["target_modules"])
    settings["inference_mode"] = True
    write_json(folder / "adapter_config.json", plain(settings))
    # Loaded back through peft, so that the golden values belong to what was saved.
    model = PeftModel.from_pretrained(load(base), folder, is_trainable=True).eval()
    sequences = make_sequences(TINY["tiny-llama"].vocab_size, generator)
    golden("tiny-llama-lora", model, sequences, stored_lora_name)


def plain(value):
    """Settings with enumerations and sets turned into what JSON can hold."""
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if isinstance(value, (set, frozenset)):
        return sorted(plain(item) for item in value)
    if hasattr(value, "value"):
        return value.value
    return value


def make_adamw():
    """A few steps of torch.optim.AdamW, with and without global-norm clipping.

    The gradients have length above and below 1, the clipping length.
    """
    generator = torch.Generator().manual_seed(3000)
    options = dict(lr=0.01, betas=(0.9, 0.95), eps=1e-8, weight_decay=0.1)
    start = torch.randn(8, generator=generator)
    gradients = [scale * torch.randn(8, generator=generator) for scale in (1.0, 0.1, 3.0, 0.01, 1.0)]
    cases = {}
    for case, clip in (("plain", None), ("clipped", 1.0)):
        parameter = torch.nn.Parameter(start.clone())
        optimiser = torch.optim.AdamW([parameter], foreach=False, **options)
        steps = []
        for gradient in gradients:
            parameter.grad = gradient.clone()
            norm = torch.nn.utils.clip_grad_norm_([parameter], clip) if clip else gradient.norm()
            optimiser.step()
            state = optimiser.state[parameter]
            steps.append({
                "gradient_norm": norm.item(),
                "parameters": parameter.tolist(),
                "first_moment": state["exp_avg"].tolist(),
                "second_moment": state["exp_avg_sq"].tolist(),
            })
        cases[case] = {"clip_norm": clip, "steps": steps}
    write_json(GOLDENS / "adamw.json", {
        "learning_rate": options["lr"], "beta1": options["betas"][0], "beta2": options["betas"][1],
        "eps": options["eps"], "weight_decay": options["weight_decay"],
        "parameters": start.tolist(), "gradients": [g.tolist() for g in gradients], "cases": cases,
    })


def make_rope():
    """Rotation frequencies of transformers, plain and with Llama-3 scaling."""
    scaling = {
        "rope_type": "llama3", "rope_theta": 500000.0, "factor": 32.0, "low_freq_factor": 1.0,
        "high_freq_factor": 4.0, "original_max_position_embeddings": 8192,
    }
    cases = []
    for parameters in ({"rope_type": "default", "rope_theta": 10000.0}, scaling):
        config = transformers.LlamaConfig(
            hidden_size=256, num_attention_heads=4, num_key_value_heads=2, head_dim=64,
            intermediate_size=8, num_hidden_layers=1, vocab_size=8,
            max_position_embeddings=131072, rope_parameters=dict(parameters),
        )
        rotary = transformers.models.llama.modeling_llama.LlamaRotaryEmbedding(config)
        cases.append({
            "head_dim": 64, "rope_parameters": parameters,
            "inverse_frequencies": rotary.inv_freq.tolist(),
        })
    write_json(GOLDENS / "rope.json", cases)


def main():
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    random.seed(0)
    for folder in (MODELS, GOLDENS):
        folder.mkdir(exist_ok=True)
    os.chdir(HERE.parent)
    make_tiny_models()
    make_lora()
    make_adamw()
    make_rope()
    for path in sorted(MODELS.rglob("*.safetensors")):
        assert path.stat().st_size < 150_000, path


if __name__ == "__main__":
    main()
