"""Small image classifiers out of .safetensors files, for reproduce_choi: LeNet-5 and the ResNets of CIFAR-10, their accuracy, and
the diagonals of their curvature by weight. The kind of network and its depth are read from the tensors' names and shapes."""
import json
import struct

import numpy as np
import torch
import torch.nn.functional as F

NUMPY_TYPES = {"F32": "<f4", "F64": "<f8", "F16": "<f2", "U8": "u1", "I64": "<i8"}


def load(path):
    """name -> array; BF16 becomes float32."""
    with open(path, "rb") as file:
        data = file.read()
    begin = 8 + struct.unpack("<Q", data[:8])[0]
    out = {}
    for name, entry in json.loads(data[8:begin]).items():
        if name == "__metadata__":
            continue
        low, high = (begin + o for o in entry["data_offsets"])
        if entry["dtype"] == "BF16":
            values = (np.frombuffer(data[low:high], "<u2").astype(np.uint32) << 16).view(np.float32)
        else:
            values = np.frombuffer(data[low:high], NUMPY_TYPES[entry["dtype"]])
        out[name] = values.reshape(entry["shape"])
    return out


def store(path, tensors):
    """Writes float32 tensors."""
    header, offset = {}, 0
    for name, values in tensors.items():
        header[name] = {"dtype": "F32", "shape": list(values.shape), "data_offsets": [offset, offset + 4 * values.size]}
        offset += 4 * values.size
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for values in tensors.values():
            file.write(np.ascontiguousarray(values, "<f4").tobytes())


def channels_last(x):
    """The order in memory that convolutions are fastest in."""
    return x.contiguous(memory_format=torch.channels_last) if x.ndim == 4 else x


class Pass:
    """One run of a network. With `taps`, inputs and outputs of every weight are remembered. `moments` takes mean and variance in
    front of each batch norm; with `aims` (those of another network) batch norms take the differences into their statistics."""

    def __init__(self, weights, taps=False, moments=None, aims=None):
        self.weights, self.taps, self.moments, self.aims = weights, {} if taps else None, moments, aims

    def remember(self, name, inputs, output, settings):
        if self.taps is None:
            return output
        output = output if output.requires_grad else output.detach().requires_grad_()
        self.taps[name] = (inputs.detach(), output, settings)
        return output

    def conv(self, x, name, stride=1, padding=0):
        w = self.weights
        y = F.conv2d(x, w[name + ".weight"], w.get(name + ".bias"), stride, padding)
        return self.remember(name, x, y, (w[name + ".weight"].shape[2:], stride, padding))

    def linear(self, x, name):
        w = self.weights
        return self.remember(name, x, F.linear(x, w[name + ".weight"], w.get(name + ".bias")), None)

    def norm(self, x, name):
        w = self.weights
        mean, variance = w[name + ".running_mean"], w[name + ".running_var"]
        if self.moments is not None:
            self.moments[name] = x.mean((0, 2, 3)), x.var((0, 2, 3))
        if self.aims is not None:
            mean = w[name + ".running_mean"] = mean + self.moments[name][0] - self.aims[name][0]
            variance = w[name + ".running_var"] = variance * self.moments[name][1] / self.aims[name][1]
        return F.batch_norm(x, mean, variance, w[name + ".weight"], w[name + ".bias"], False, 0, 1e-5)


def lenet(run, x):
    x = F.max_pool2d(F.relu(run.conv(x, "conv1")), 2)
    x = F.max_pool2d(F.relu(run.conv(x, "conv2")), 2)
    return run.linear(F.relu(run.linear(x.flatten(1), "fc1")), "fc2")


def resnet(run, x):
    """He et al. 2016 for CIFAR-10: three stages, shortcuts without weights (every second pixel, channels padded with zeros)."""
    blocks = 1 + max(int(name.split(".")[1]) for name in run.weights if name.startswith("layer1."))
    x = F.relu(run.norm(run.conv(x, "conv1", 1, 1), "bn1"))
    for stage in (1, 2, 3):
        for block in range(blocks):
            at, stride = f"layer{stage}.{block}", 1 + (stage > 1 and block == 0)
            y = F.relu(run.norm(run.conv(x, at + ".conv1", stride, 1), at + ".bn1"))
            y = run.norm(run.conv(y, at + ".conv2", 1, 1), at + ".bn2")
            if stride == 2:
                added = y.shape[1] - x.shape[1]
                x = F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, added // 2, added - added // 2))
            x = F.relu(x + y)
    return run.linear(x.mean((2, 3)), "linear")


class Network:
    """Weights as a network over images. `names` are the weights it multiplies by."""

    def __init__(self, tensors):
        if "fc1.weight" in tensors and "conv2.weight" in tensors:
            self.kind, self.forward, mean, deviation = "LeNet-5", lenet, [0.1307], [0.3081]
        elif "layer1.0.conv1.weight" in tensors and "linear.weight" in tensors:
            mean, deviation = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
            depth = 2 + 6 * (1 + max(int(name.split(".")[1]) for name in tensors if name.startswith("layer1.")))
            self.kind, self.forward = f"ResNet-{depth}", resnet
        else:
            raise SystemExit("reproduce_choi: neither a LeNet-5 (conv1 .. fc2) nor a ResNet for CIFAR-10 (layer1.0.conv1 ..)")
        self.shift = torch.tensor(mean).view(1, -1, 1, 1)
        self.scale = torch.tensor(deviation).view(1, -1, 1, 1)
        self.weights = {name: channels_last(torch.from_numpy(np.array(values, np.float32))) for name, values in tensors.items()}

    def inputs(self, images):
        return channels_last((torch.from_numpy(np.array(images)).float() / 255 - self.shift) / self.scale)

    def accuracy(self, images, labels, batch=250):
        """(share of right answers in percent, mean loss in nats)"""
        right, loss, labels = 0, 0.0, torch.from_numpy(labels.astype(np.int64))
        with torch.inference_mode():
            for i in range(0, len(labels), batch):
                z, y = self.forward(Pass(self.weights), self.inputs(images[i:i + batch])), labels[i:i + batch]
                right += int((z.argmax(1) == y).sum())
                loss += float(F.cross_entropy(z, y, reduction="sum"))
        return 100 * right / len(labels), loss / len(labels)

    def logits(self, images, batch=250):
        """Centred logits [images, classes]."""
        with torch.inference_mode():
            z = torch.cat([self.forward(Pass(self.weights), self.inputs(images[i:i + batch])) for i in range(0, len(images), batch)])
        return z - z.mean(1, keepdim=True)

    def corrected(self, original, images):
        """Batch norms follow what quantization does to mean and variance in front of them, measured on images (no labels, no
        gradients; the original network would not change). The file has as many bytes as before."""
        moments = {}
        with torch.inference_mode():
            original.forward(Pass(original.weights, moments=moments), original.inputs(images))
            self.forward(Pass(self.weights, moments={}, aims=moments), self.inputs(images))
        return self

    def curvature(self, images, what, batch=32):
        """NAME -> array like the weight: mean over the images of the squared gradients of the classes' log-probabilities, each
        weighted by its probability (`fisher`: the exact expectation over labels of the model, no sampling), or of the centred
        logits, all alike (`logits`). For each image the gradient of a weight is summed over the positions before it is squared."""
        sums = {}
        for i in range(0, len(images), batch):
            run = Pass(self.weights, taps=True)
            z = self.forward(run, self.inputs(images[i:i + batch]))
            classes = z.shape[1]
            logs = F.log_softmax(z, 1) if what == "fisher" else z - z.mean(1, keepdim=True)
            share = z.softmax(1).detach() if what == "fisher" else torch.ones_like(z)
            taps = list(run.taps.items())
            by_class = [torch.autograd.grad(logs[:, c].sum(), [tap[1] for _, tap in taps], retain_graph=c + 1 < classes)
                        for c in range(classes)]
            for k, (name, (inputs, _, settings)) in enumerate(taps):
                outs = torch.stack([of_class[k] for of_class in by_class])
                if settings is None:  # one position: the square of a product
                    squares = torch.einsum("cbo,bc->bo", outs.square(), share)
                    self.add(sums, name + ".weight", squares.T @ inputs.square())
                    self.add(sums, name + ".bias", squares.sum(0))
                    continue
                columns = F.unfold(inputs, settings[0], 1, settings[2], settings[1]).transpose(1, 2)
                for c in range(classes):  # each image's gradient: [rows, positions] by [positions, columns]
                    gradient = torch.bmm(outs[c].flatten(2), columns)
                    self.add(sums, name + ".weight", share[:, c] @ gradient.square_().flatten(1))
                    self.add(sums, name + ".bias", share[:, c] @ outs[c].sum((2, 3)).square())
        return {name: (values / len(images)).reshape(self.weights[name].shape).double().numpy() for name, values in sums.items()}

    def add(self, sums, name, values):
        if name in self.weights:
            sums[name] = sums[name] + values if name in sums else values
