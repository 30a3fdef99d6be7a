"""An export is loaded with the safetensors package (pip install safetensors numpy) and compared with a reader of our own.
usage: check_export.py EXPORT_FOLDER_OR_FILE
Skipped (exit code 77) where the package is not installed."""
import os
import sys

try:
    from safetensors import safe_open
except ImportError:
    print("the safetensors package is not installed")
    sys.exit(77)

os.environ.setdefault("LMQ", "")
os.environ.setdefault("LMQ_DATA", "")
from lmq_harness import read_safetensors  # noqa: E402

path = sys.argv[1]
files = [path] if os.path.isfile(path) else [os.path.join(path, n) for n in sorted(os.listdir(path)) if n.endswith(".safetensors")]
count = 0
for name in files:
    ours, metadata = read_safetensors(name)
    with safe_open(name, framework="numpy") as theirs:
        assert set(theirs.keys()) == set(ours), name
        assert (theirs.metadata() or {}) == metadata, name
        for key in theirs.keys():
            window = theirs.get_slice(key)
            assert tuple(window.get_shape()) == ours[key][1] and window.get_dtype() == ours[key][0], key
            if ours[key][0] in ("F16", "F32", "F64"):
                assert theirs.get_tensor(key).tobytes() == ours[key][2], key
            count += 1
print(f"{len(files)} files, {count} tensors")
