"""Image classifiers as torch modules whose parameters have the names of the checkpoint: ResNets for CIFAR-10 with option-A
shortcuts, LeNet-5, and Keras files made of common layers."""
import json

import numpy as np
import torch
from torch import nn
from torch.nn import functional


class Block(nn.Module):
    def __init__(self, inputs, outputs, stride):
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.stride, self.padding = stride, (outputs - inputs) // 2

    def forward(self, x):
        y = self.bn2(self.conv2(functional.relu(self.bn1(self.conv1(x)))))
        if self.stride > 1:  # option A: every other pixel, channels of zeros around
            x = functional.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, self.padding, self.padding))
        return functional.relu(x + y)


class ResNet(nn.Module):
    """6 * blocks + 2 layers."""

    def __init__(self, blocks):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 16, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        stage = lambda inputs, outputs, stride: nn.Sequential(
            Block(inputs, outputs, stride), *[Block(outputs, outputs, 1) for _ in range(blocks - 1)])
        self.layer1, self.layer2, self.layer3 = stage(16, 16, 1), stage(16, 32, 2), stage(32, 64, 2)
        self.linear = nn.Linear(64, 10)

    def forward(self, x):
        x = functional.relu(self.bn1(self.conv1(x)))
        return self.linear(self.layer3(self.layer2(self.layer1(x))).mean((2, 3)))

    @staticmethod
    def pixels(images):
        mean, deviation = torch.tensor([.485, .456, .406]), torch.tensor([.229, .224, .225])
        return (images.float() / 255 - mean[:, None, None]) / deviation[:, None, None]


class LeNet(nn.Module):
    """conv 20@5x5, pool, conv 50@5x5, pool, 500, 10."""

    def __init__(self):
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(1, 20, 5), nn.Conv2d(20, 50, 5)
        self.fc1, self.fc2 = nn.Linear(800, 500), nn.Linear(500, 10)

    def forward(self, x):
        for layer in (self.conv1, self.conv2):
            x = functional.max_pool2d(functional.relu(layer(x)), 2)
        return self.fc2(functional.relu(self.fc1(x.flatten(1))))

    @staticmethod
    def pixels(images):
        return (images.float() / 255 - .1307) / .3081


class Keras(nn.Module):
    """The functional model that a Keras .h5 file describes. Its weights come out under PyTorch's names and in its order of axes,
    `conv2d.weight` [outputs, inputs, height, width]; the last softmax is left to the loss."""

    def __init__(self, path):
        super().__init__()
        import h5py
        with h5py.File(path, "r") as file:
            self.graph = json.loads(file.attrs["model_config"])["config"]
            root = file["model_weights"] if "model_weights" in file else file
            arrays = {layer: {str(name).rsplit("/", 1)[-1].split(":")[0]: np.asarray(group[name], np.float32)
                              for name in group.attrs.get("weight_names", [])} for layer, group in root.items()}
        for layer in self.graph["layers"]:
            module = self.module_of(layer["class_name"], layer["config"], arrays.get(layer["config"]["name"], {}))
            if module is not None:
                self.add_module(layer["config"]["name"], module)

    @staticmethod
    def module_of(kind, settings, arrays):
        tensors = {name: torch.from_numpy(values) for name, values in arrays.items()}
        if kind == "Conv2D":
            kernel = tensors["kernel"].permute(3, 2, 0, 1)
            module = nn.Conv2d(kernel.shape[1], kernel.shape[0], kernel.shape[2:], settings["strides"], bias="bias" in tensors)
            state = {"weight": kernel}
        elif kind == "Dense":
            module = nn.Linear(*tensors["kernel"].shape, bias="bias" in tensors)
            state = {"weight": tensors["kernel"].T}
        elif kind == "BatchNormalization":
            module = nn.BatchNorm2d(len(tensors["moving_mean"]), settings["epsilon"])
            names = {"gamma": "weight", "moving_mean": "running_mean", "moving_variance": "running_var"}
            state = {names[name]: values for name, values in tensors.items() if name in names}
        else:
            return None
        if "bias" in tensors or "beta" in tensors:
            state["bias"] = tensors.get("bias", tensors.get("beta"))
        module.load_state_dict(state)
        return module

    def run(self, layer, inputs):
        kind, settings, x = layer["class_name"], layer["config"], inputs[0]
        module = self._modules.get(settings["name"])
        if kind == "Conv2D" and settings["padding"] == "same":
            x = functional.pad(x, same_padding(x.shape, settings["kernel_size"], settings["strides"]))
        if kind in ("Conv2D", "Dense", "BatchNormalization"):
            x = module(x)
        elif kind == "Add":
            x = sum(inputs[1:], x)
        elif kind == "AveragePooling2D":
            x = functional.avg_pool2d(x, settings["pool_size"], settings["strides"])
        elif kind == "Flatten":
            x = x.permute(0, 2, 3, 1).flatten(1) if x.dim() == 4 else x.flatten(1)
        elif kind not in ("Activation", "Dropout"):
            raise ValueError(f"layer {kind} is not known")
        activation = settings.get("activation", "linear")
        return {"linear": lambda y: y, "softmax": lambda y: y, "relu": functional.relu}[activation](x)

    def forward(self, x):
        out = {}
        for layer in self.graph["layers"]:
            nodes = layer["inbound_nodes"]
            out[layer["name"]] = self.run(layer, [out[node[0]] for node in nodes[0]]) if nodes else x
        return out[self.graph["output_layers"][0][0]]

    @staticmethod
    def pixels(images):
        return images.float()


def same_padding(shape, kernel, strides):
    """left, right, top, bottom of Keras' padding 'same'."""
    out = []
    for size, width, stride in ((shape[3], kernel[1], strides[1]), (shape[2], kernel[0], strides[0])):
        total = max((-(-size // stride) - 1) * stride + width - size, 0)
        out += [total // 2, total - total // 2]
    return out


def resnet_of(names):
    return ResNet(1 + max(int(name.split(".")[1]) for name in names if name.startswith("layer1.")))
