"""Models of a few hundred kilobytes, made by the tests that need them: they load where the large ones do, in no time.

All of them read pairs of characters (`harbour` -> `ha ##rb ##ou ##r`), which have random vectors; texts that share
words are near each other.
"""

from __future__ import annotations

import json
import string
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

DIMENSIONS = 32
MAX_LENGTH = 128
SPECIAL = ("[PAD]", "[unused0]", "[unused1]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
"""In BERT's order: ColBERT marks questions with token 1 and passages with token 2."""


def write_dense_model(folder: Path, *, dimensions: int = DIMENSIONS, pooling: str = "mean", seed: int = 0) -> Path:
    """An embedding model as `fastembed:FOLDER` loads it: ONNX weights, a tokenizer and what to do with token vectors.

    Args:
        folder: Made when missing.
        dimensions: Length of its vectors.
        pooling: `mean` or `cls` over the vectors of the tokens, `built in` where the model itself gives one vector, or
            `unsaid` where nothing tells.
        seed: Other seeds give other weights.
    """
    _write_tokenizer(folder)
    table = _table(dimensions, seed)
    nodes = [_node("Gather", ["table", "input_ids"], "last_hidden_state")]
    outputs = {"last_hidden_state": ["batch", "length", dimensions]}
    if pooling == "built in":
        nodes += _masked_mean("last_hidden_state", "attention_mask", "sentence_embedding")
        outputs = {"sentence_embedding": ["batch", dimensions]}
    _write_graph(folder, nodes, {"table": table}, ["input_ids", "attention_mask"], outputs)
    if pooling in ("mean", "cls"):
        modes = {"pooling_mode_mean_tokens": pooling == "mean", "pooling_mode_cls_token": pooling == "cls"}
        _write_json(folder / "1_Pooling" / "config.json", {"word_embedding_dimension": dimensions, **modes})
    return folder


def write_cross_encoder(folder: Path, *, seed: int = 0) -> Path:
    """A cross-encoder as fastembed loads it: its logit is higher, the more the question and the passage share."""
    _write_tokenizer(folder)
    nodes = [
        _node("Gather", ["table", "input_ids"], "tokens"),
        _node("Mul", ["attention_mask", "token_type_ids"], "in_passage"),
        _node("Sub", ["attention_mask", "in_passage"], "in_question"),
        *_masked_mean("tokens", "in_question", "question"),
        *_masked_mean("tokens", "in_passage", "passage"),
        *_unit("question", axis=1),
        *_unit("passage", axis=1),
        _node("Mul", ["question_unit", "passage_unit"], "products"),
        _node("ReduceSum", ["products", "axis_1"], "cosine", keepdims=1),
        _node("Mul", ["cosine", "scale"], "logits"),
    ]
    constants = {"table": _table(DIMENSIONS, seed), "scale": np.float32([8.0])}
    inputs = ["input_ids", "attention_mask", "token_type_ids"]
    _write_graph(folder, nodes, constants, inputs, {"logits": ["batch", 1]})
    return folder


def write_late_interaction_model(folder: Path, *, seed: int = 0) -> Path:
    """A model like ColBERT as fastembed loads it: one unit vector for each token, none for special tokens."""
    _write_tokenizer(folder)
    nodes = [_node("Gather", ["table", "input_ids"], "tokens"), *_unit("tokens", axis=2)]
    outputs = {"tokens_unit": ["batch", "length", DIMENSIONS]}
    _write_graph(folder, nodes, {"table": _table(DIMENSIONS, seed)}, ["input_ids", "attention_mask"], outputs)
    return folder


def write_sentence_transformer(folder: Path, *, prompts: dict[str, str] | None = None, seed: int = 0) -> Path:
    """An embedding model as `sentence-transformers:FOLDER` loads it: BERT of one layer. It needs that library.

    Args:
        folder: Made when missing.
        prompts: What the model says should stand before a `query` and a `document`; None says nothing.
        seed: Other seeds give other weights.
    """
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.models import Pooling, Transformer

    base = _write_bert(folder.with_name(f"{folder.name}-base"), "BertModel", seed)
    transformer = Transformer(str(base), max_seq_length=MAX_LENGTH)
    SentenceTransformer(modules=[transformer, Pooling(DIMENSIONS)], prompts=prompts, device="cpu").save(str(folder))
    return folder


def write_sentence_cross_encoder(folder: Path, *, seed: int = 0) -> Path:
    """A cross-encoder as `sentence-transformers:FOLDER` loads it, with random weights. It needs that library."""
    return _write_bert(folder, "BertForSequenceClassification", seed, num_labels=1)


def _write_bert(folder: Path, kind: str, seed: int, **settings: Any) -> Path:
    import torch
    import transformers

    _write_tokenizer(folder)
    config = transformers.BertConfig(
        vocab_size=len(_vocabulary()),
        hidden_size=DIMENSIONS,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=2 * DIMENSIONS,
        max_position_embeddings=MAX_LENGTH,
        **settings,
    )
    torch.manual_seed(seed)
    getattr(transformers, kind)(config).save_pretrained(str(folder))
    return folder


def _vocabulary() -> list[str]:
    letters = string.ascii_lowercase + string.digits
    pieces = [*letters, *(first + second for first in letters for second in letters)]
    return [*SPECIAL, *string.punctuation, *pieces, *(f"##{piece}" for piece in pieces)]


def _table(dimensions: int, seed: int) -> NDArray[np.float32]:
    """A row for each token; special tokens, all but the unknown one, have rows of zeros."""
    table = np.random.default_rng(seed).normal(size=(len(_vocabulary()), dimensions)).astype(np.float32)
    table[[token != "[UNK]" and token in SPECIAL for token in _vocabulary()]] = 0
    return table


def _write_tokenizer(folder: Path) -> None:
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

    ids = {token: number for number, token in enumerate(_vocabulary())}
    tokenizer = Tokenizer(models.WordPiece(ids, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.add_special_tokens(list(SPECIAL))
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[(token, ids[token]) for token in ("[CLS]", "[SEP]")],
    )
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    names = {f"{name.lower()}_token": f"[{name}]" for name in ("PAD", "UNK", "CLS", "SEP", "MASK")}
    _write_json(folder / "special_tokens_map.json", names)
    settings = {"tokenizer_class": "BertTokenizerFast", "model_max_length": MAX_LENGTH, **names}
    _write_json(folder / "tokenizer_config.json", settings)
    _write_json(folder / "config.json", {"model_type": "bert", "pad_token_id": 0})


def _write_json(path: Path, value: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value), encoding="utf-8")


def _node(operator: str, inputs: list[str], output: str, **attributes: Any) -> Any:
    from onnx import helper

    return helper.make_node(operator, inputs, [output], **attributes)


def _masked_mean(tokens: str, mask: str, output: str) -> list[Any]:
    """(batch, length, dimensions) and (batch, length) -> (batch, dimensions): the mean where the mask is 1."""
    from onnx import TensorProto

    weights, weighted, total, count = (f"{output}_{part}" for part in ("weights", "weighted", "total", "count"))
    return [
        _node("Cast", [mask], f"{weights}_flat", to=TensorProto.FLOAT),
        _node("Unsqueeze", [f"{weights}_flat", "axis_2"], weights),
        _node("Mul", [tokens, weights], weighted),
        _node("ReduceSum", [weighted, "axis_1"], total, keepdims=0),
        _node("ReduceSum", [weights, "axis_1"], f"{count}_raw", keepdims=0),
        _node("Max", [f"{count}_raw", "small"], count),
        _node("Div", [total, count], output),
    ]


def _unit(rows: str, axis: int) -> list[Any]:
    return [
        _node("ReduceL2", [rows], f"{rows}_length_raw", axes=[axis], keepdims=1),
        _node("Max", [f"{rows}_length_raw", "small"], f"{rows}_length"),
        _node("Div", [rows, f"{rows}_length"], f"{rows}_unit"),
    ]


def _write_graph(
    folder: Path,
    nodes: list[Any],
    constants: dict[str, NDArray[Any]],
    inputs: list[str],
    outputs: dict[str, list[str | int]],
) -> None:
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    shared = {"axis_1": np.int64([1]), "axis_2": np.int64([2]), "small": np.float32([1e-6])}
    # ONNX Runtime warns of constants that nothing reads.
    read = {name for node in nodes for name in node.input}
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info(name, TensorProto.INT64, ["batch", "length"]) for name in inputs],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in outputs.items()],
        [numpy_helper.from_array(value, name) for name, value in {**shared, **constants}.items() if name in read],
    )
    # Older than what the installed ONNX Runtime reads at most.
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    onnx.save(model, str(folder / "model.onnx"))
