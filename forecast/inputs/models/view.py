"""A folder in which loaders find what was located and fingerprinted, and nothing that lies beside it.

transformers and vLLM look around in the folder that they are given: for adapters, for templates in folders of
their own, for weights, code and vocabularies under other names. What they would find is in no fingerprint.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

from forecast import storage
from forecast.inputs.models.resolve import ModelFiles


@contextmanager
def view_of(files: ModelFiles) -> Iterator[ModelFiles]:
    """The same files as links in a folder that is there within the block.

    Raises:
        StorageError: TMPDIR takes no folder.
    """
    with storage.scratch() as parent:
        # Of the same name: transformers names modules of a model's own code after it.
        folder = parent / (files.folder.name or "model")
        folder.mkdir()
        for path in (*files.weights, *files.others):
            # An index beside weights in one file is stale; of the two vLLM goes by the index.
            if not (len(files.weights) == 1 and path.name == f"{files.weights[0].name}.index.json"):
                (folder / path.name).symlink_to(path.absolute())
        gguf = files.gguf and folder / files.gguf.name
        weights = tuple(folder / path.name for path in files.weights)
        yield replace(files, folder=folder, gguf=gguf, weights=weights)
