"""The index of a corpus: its chunks under one chunking, their terms, and their vectors under one embedder.

A folder in `runs/indexes` holds one chunking: chunks, terms, and for each embedder that was asked for a file of vectors
and, for programs in use, a Chroma store. Each part is built once, beside its place, and moved there when it is
complete; after that it never changes.
"""

from __future__ import annotations

import json
import shutil
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any, Self
from weakref import WeakValueDictionary

import numpy as np

from programs.chunking import chunking_settings, make_chunks
from programs.config import PipelineConfig, fingerprint
from programs.corpus import Corpus
from programs.embedding import Embedder, Vectors, embedder_identity, open_embedder
from programs.errors import RagwrightError
from programs.exact import ExactVectors, Mask
from programs.ranking import Positions, Ranking, check_k
from programs.sparse import SparseIndex
from programs.summaries import Summarizer
from programs.types import Chunk, Document, Span
from programs.vector_store import HNSW, VectorStore, build_store, chroma_version

Progress = Callable[[int, int], None]

_META, _CHUNKS, _SPARSE = "meta.json", "chunks.jsonl", "sparse"
_EMBEDDED_AT_ONCE = 1000
_OPEN: WeakValueDictionary[tuple[Path, str, bool], Index] = WeakValueDictionary()
_CHUNKINGS: WeakValueDictionary[tuple[Path, int], Chunking] = WeakValueDictionary()


class Chunking:
    """What the indexes of one chunking share, whatever embeds it: its chunks and their terms.

    Attributes:
        folder: Where they lie.
        chunks: In the order of documents and spans.
        texts: What each chunk is indexed as: its context prefix and its text.
    """

    def __init__(self, folder: Path, corpus: Corpus) -> None:
        self.folder = folder
        chunks, prefixes = _read_chunks(folder, corpus)
        self.chunks = tuple(chunks)
        self.texts = tuple(prefix + chunk.text for prefix, chunk in zip(prefixes, chunks, strict=True))
        self._lock = threading.Lock()

    @property
    def sparse(self) -> SparseIndex:
        """BM25 over the chunks, numbered as in `chunks`; read at its first use."""
        with self._lock:
            return self._sparse

    @cached_property
    def _sparse(self) -> SparseIndex:
        return SparseIndex.load(self.folder / _SPARSE, len(self.chunks))


class Index:
    """Chunks that can be searched by vector and by words. Safe to use from many threads; get one from `open_index`.

    Attributes:
        key: Names the index; see `index_key`.
        chunks: In the order of documents and spans. Ties in scores are broken by this order.
        texts: What each chunk is indexed as: its context prefix and its text.
        documents: All documents by id.
        embedder: What made the vectors; None for an index without vectors.
        cache: The folder of caches that outlive the process.
        folder: Where its chunks, terms and vectors lie.
        served: Whether vectors are searched in Chroma, approximately; else all are looked at.
    """

    def __init__(
        self,
        key: str,
        chunking: Chunking,
        corpus: Corpus,
        embedder: Embedder | None,
        store: VectorStore | None = None,
    ) -> None:
        self.key = key
        self.folder, self.chunks, self.texts = chunking.folder, chunking.chunks, chunking.texts
        self.documents: Mapping[str, Document] = {document.id: document for document in corpus.documents}
        self.embedder = embedder
        self.cache: Path | None = self.folder.parent.parent / "cache"
        self.served = store is not None
        self._chunking, self._store = chunking, store

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        # DSPy's optimizers copy programs whole; an index is immutable and shared.
        return self

    def nearest(self, vectors: Vectors, k: int, mask: Mask | None = None) -> list[Ranking]:
        """The `k` chunks whose vectors are nearest to each of `vectors`, fewer where there are fewer.

        Args:
            vectors: As `embedder` makes them, one row a question. A row of zeros is near to nothing and finds nothing.
            k: At least 1.
            mask: Which chunks count; with one the search is exact in any case.

        Returns:
            One ranking a question, its scores cosine similarities in [-1, 1].

        Raises:
            RagwrightError: `k` is below 1 or the index has no vectors.
        """
        check_k(k)
        if self._store is not None and mask is None:
            return self._store.nearest(vectors, k)
        return self.exact.nearest(vectors, k, mask)

    def vectors_of(self, positions: Positions) -> Vectors:
        """The vectors of some chunks, one row each.

        Raises:
            RagwrightError: The index has no vectors.
        """
        return self.exact.rows(positions)

    @cached_property
    def exact(self) -> ExactVectors:
        """All vectors.

        Raises:
            RagwrightError: The index has none.
        """
        if self.embedder is None:
            raise RagwrightError(
                "embedder: 'none' makes no vectors; all retrievers but sparse, and mmr, need an embedder."
            )
        file = _vectors_file(self.folder, self.embedder.name)
        try:
            rows = np.load(file, mmap_mode="r")
        except (ValueError, EOFError) as error:
            raise RagwrightError(f"{file}: the vectors are damaged ({error}); delete this file.") from None
        if len(rows) != len(self.chunks):
            raise RagwrightError(f"{file}: has {len(rows)} vectors for {len(self.chunks)} chunks; delete this file.")
        return ExactVectors(rows)

    @property
    def sparse(self) -> SparseIndex:
        """BM25 over the chunks, numbered as in `chunks`."""
        return self._chunking.sparse

    @property
    def closed(self) -> bool:
        """Whether `close` was called and there was something to release."""
        return self._store is not None and self._store.closed

    def close(self) -> None:
        """Release the files; also happens by itself when nothing refers to the index any more."""
        if self._store is not None:
            self._store.close()


def index_key(corpus: Corpus, config: PipelineConfig, lm: str = "") -> str:
    """Twelve hex digits that name chunks, terms and vectors: equal for configurations that can share them.

    Args:
        corpus: What is indexed.
        config: How.
        lm: Names the LM that writes context prefixes, where one does.

    Raises:
        RagwrightError: The embedder is unknown.
    """
    config = config.canonical()
    vectors = None if config.embedder == "none" else embedder_identity(config.embedder)
    return fingerprint([chunking_settings(corpus, config, lm), vectors])


def open_index(
    runs: Path,
    corpus: Corpus,
    config: PipelineConfig,
    progress: Progress | None = None,
    *,
    served: bool = False,
    summarizer: Summarizer | None = None,
) -> Index:
    """The index that a configuration needs: the one already open in this process, the one on disk, or a new one.

    Several threads and processes may ask at once: one builds, the others wait for it.

    Args:
        runs: The folder that everything is kept under.
        corpus: What is indexed.
        config: Only what concerns chunks and vectors matters.
        progress: Called with the numbers of embedded chunks and of all chunks while vectors are made.
        served: Search vectors in Chroma, approximately and with little memory, as programs in use do. Otherwise all
            vectors are looked at, so that results do not depend on how a graph happened to be built.
        summarizer: Writes the context prefixes of the kind `summary`.

    Raises:
        RagwrightError: A setting is out of range, or the embedder fails.
    """
    from filelock import FileLock

    config = config.canonical()
    lm = "" if summarizer is None else summarizer.identity
    settings, key = chunking_settings(corpus, config, lm), index_key(corpus, config, lm)
    folder = runs.resolve() / "indexes" / fingerprint(settings)
    served = served and config.embedder != "none"
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(folder.with_name(f".{folder.name}.lock")):
        opened = _OPEN.get((folder, config.embedder, served))
        complete = _is_complete(folder)
        if opened is not None and complete and not opened.closed:
            return opened
        if opened is not None:
            opened.close()
        if not complete:
            with _aside(folder) as aside:
                _write_chunks(aside, settings, *make_chunks(corpus, config, summarizer))
        index = _open(key, folder, corpus, config, progress, served)
        _OPEN[folder, config.embedder, served] = index
        return index


def _open(
    key: str, folder: Path, corpus: Corpus, config: PipelineConfig, progress: Progress | None, served: bool
) -> Index:
    chunking = _open_chunking(folder, corpus)
    if config.embedder == "none":
        return Index(key, chunking, corpus, None)
    embedder = open_embedder(config.embedder, folder.parent.parent / "cache")
    index = Index(key, chunking, corpus, embedder)
    vectors = _vectors_file(folder, config.embedder)
    if not vectors.is_file():
        _write_vectors(vectors, corpus, config, index, progress)
    if not served:
        return index
    store = _store_folder(folder, config.embedder)
    if not (store / _META).is_file():
        _build_store(store, index)
    return Index(key, chunking, corpus, embedder, VectorStore(store, chunking.chunks))


def _open_chunking(folder: Path, corpus: Corpus) -> Chunking:
    """The chunking, perhaps already open; one that was built again since is another."""
    version = (folder / _META).stat().st_mtime_ns
    chunking = _CHUNKINGS.get((folder, version))
    if chunking is None:
        chunking = _CHUNKINGS[folder, version] = Chunking(folder, corpus)
    return chunking


def _is_complete(folder: Path) -> bool:
    try:
        meta = json.loads((folder / _META).read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return False
    return isinstance(meta, dict) and meta.get("status") == "complete" and (folder / _CHUNKS).is_file()


def _write_chunks(
    folder: Path, settings: Mapping[str, Any], chunks: Sequence[Chunk], prefixes: Sequence[str], sparse: SparseIndex
) -> None:
    (folder / _CHUNKS).write_text("\n".join(map(_to_line, chunks, prefixes)), encoding="utf-8")
    sparse.save(folder / _SPARSE)
    meta = {"status": "complete", "chunks": len(chunks), "chunking": dict(settings)}
    (folder / _META).write_text(json.dumps(meta, indent=2) + "\n", encoding="utf-8")


def _write_vectors(file: Path, corpus: Corpus, config: PipelineConfig, index: Index, progress: Progress | None) -> None:
    brought, whole = corpus.brought, config.splitter == "whole" and config.context_prefix == "none"
    if brought is not None and whole and brought.embedder == config.embedder:
        vectors = brought.of([chunk.span.doc_id for chunk in index.chunks])
    else:
        assert index.embedder is not None, "asked for by the configuration"
        vectors = _embed(index.texts, index.embedder, progress)
    aside = file.with_name(f".{file.name}")
    with aside.open("wb") as stream:
        np.save(stream, vectors, allow_pickle=False)
    aside.replace(file)


def _embed(texts: Sequence[str], embedder: Embedder, progress: Progress | None) -> Vectors:
    parts = []
    for start in range(0, len(texts), _EMBEDDED_AT_ONCE):
        parts.append(embedder.embed(texts[start : start + _EMBEDDED_AT_ONCE]))
        if progress is not None:
            progress(min(start + _EMBEDDED_AT_ONCE, len(texts)), len(texts))
    return np.concatenate(parts)


def _build_store(folder: Path, index: Index) -> None:
    with _aside(folder) as aside:
        build_store(aside, index.chunks, index.exact.rows(np.arange(len(index.chunks))))
        meta = {"chunks": len(index.chunks), "hnsw": HNSW, "chromadb": chroma_version()}
        (aside / _META).write_text(json.dumps(meta, indent=2) + "\n", encoding="utf-8")


@contextmanager
def _aside(folder: Path) -> Iterator[Path]:
    """A folder to build in, moved to its place when the block ends well."""
    aside = folder.with_name(f".{folder.name}.building")
    # Left by a builder that was killed: the lock is held, so nobody is at work there.
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir()
    try:
        yield aside
        shutil.rmtree(folder, ignore_errors=True)
        aside.rename(folder)
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def _vectors_file(folder: Path, embedder: str) -> Path:
    return folder / f"vectors-{fingerprint(embedder_identity(embedder))}.npy"


def _store_folder(folder: Path, embedder: str) -> Path:
    return folder / f"chroma-{fingerprint([embedder_identity(embedder), HNSW])}"


def _to_line(chunk: Chunk, prefix: str) -> str:
    """What the corpus does not know of a chunk."""
    span = chunk.span
    return json.dumps([span.doc_id, span.start, span.end, chunk.tokens, chunk.headings, prefix], ensure_ascii=False)


def _read_chunks(folder: Path, corpus: Corpus) -> tuple[list[Chunk], list[str]]:
    lines = (folder / _CHUNKS).read_text(encoding="utf-8").split("\n")
    chunks, prefixes = [], []
    for doc_id, start, end, tokens, headings, prefix in json.loads(f"[{','.join(lines)}]"):
        document = corpus.document(doc_id)
        span, text = Span(doc_id, start, end), document.text[start:end]
        chunks.append(Chunk(f"{doc_id}#{start}-{end}", span, text, document.title, tuple(headings), tokens))
        prefixes.append(prefix)
    return chunks, prefixes
