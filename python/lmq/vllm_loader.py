"""A load format for vLLM: `--load-format lmq --model-loader-extra-config '{"file": "model.h5"}'`, beside the model's folder with its json files.

vLLM finds `register` by the entry point group vllm.general_plugins. Weights are decoded one by one on their way into the model and are
then what `lmq export` would give: BF16 stays BF16 in memory.
"""
import glob
import os

from .file import load


def file_of(folder, extra):
    """Path of the quantized file: as `file` of the extra configuration says (in the model's folder or by itself), else the folder's only .h5."""
    named = (extra or {}).get("file")
    if named:
        inside = os.path.join(folder, named)
        return inside if os.path.exists(inside) else named
    found = sorted(glob.glob(os.path.join(folder, "*.h5")))
    if len(found) != 1:
        raise ValueError(f"{folder}: {len(found)} .h5 files, expected one: name it in --model-loader-extra-config, {{\"file\": ...}}")
    return found[0]


def weights(path):
    """Yields (name, torch tensor)."""
    with load(path) as file:
        for name in file:
            yield name, file[name].torch()


def register():
    """Makes the load format `lmq` known to vLLM."""
    from vllm.model_executor.model_loader import BaseModelLoader, register_model_loader

    @register_model_loader("lmq")
    class LmqLoader(BaseModelLoader):
        def path(self, model_config):
            return file_of(model_config.model, self.load_config.model_loader_extra_config)

        def download_model(self, model_config):
            """Nothing is fetched; a file that is not there is said early."""
            if not os.path.exists(self.path(model_config)):
                raise FileNotFoundError(self.path(model_config))

        def load_weights(self, model, model_config):
            model.load_weights(weights(self.path(model_config)))
    return LmqLoader
