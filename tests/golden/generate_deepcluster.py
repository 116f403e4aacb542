"""Records a small DeepCluster-v2 run in float64 with PyTorch: `deepcluster.safetensors`, read by tests/deepcluster.rs.

    python tests/golden/generate_deepcluster.py

Written from the published description of the method (SwAV paper, appendix, and the behaviour of the official program), not from its code.
Everything random is drawn here and recorded: weights, crops, order of the images, rows that k-means starts from.
"""
import json
import struct
from pathlib import Path

import torch
import torch.nn as nn
import torch.nn.functional as F

SEED = 3  # batch norms over four rows amplify rounding: with 4 and 5 float32 ends a few 1e-4 away
IMAGES, BATCH, EPOCHS = 11, 4, 3
CROPS = [(2, 16), (2, 8)]
ASSIGN = [0, 1]
WIDTH, HIDDEN, DIM = 4, 12, 8
HEADS, CLUSTERS, ITERATIONS, TEMPERATURE = 3, 3, 4, 0.1
LR, MOMENTUM, DECAY, TRUST, EPS = [0.8, 0.9, 0.7, 0.5, 0.3, 0.1], 0.9, 1e-4, 0.01, 1e-8


class Block(nn.Module):
    def __init__(self, inputs, outputs, stride):
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.downsample = None
        if stride != 1 or inputs != outputs:
            self.downsample = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))

    def forward(self, x):
        shortcut = x if self.downsample is None else self.downsample(x)
        x = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        return F.relu(x + shortcut)


class Prototypes(nn.Module):
    def __init__(self):
        super().__init__()
        for head in range(HEADS):
            setattr(self, f"prototypes{head}", nn.Linear(DIM, CLUSTERS, bias=False))

    def head(self, h):
        return getattr(self, f"prototypes{h}").weight


class Network(nn.Module):
    """Official names, standard stem."""

    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(3, WIDTH, 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(WIDTH)
        widths = [WIDTH << stage for stage in range(4)]
        for stage, width in enumerate(widths):
            block = Block(widths[max(stage - 1, 0)], width, 1 if stage == 0 else 2)
            setattr(self, f"layer{stage + 1}", nn.Sequential(block))
        self.projection_head = nn.Sequential(nn.Linear(widths[3], HIDDEN), nn.BatchNorm1d(HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, DIM))
        self.prototypes = Prototypes()

    def backbone(self, x):
        x = F.max_pool2d(F.relu(self.bn1(self.conv1(x))), 3, 2, 1)
        for stage in range(1, 5):
            x = getattr(self, f"layer{stage}")(x)
        return x.mean(dim=(2, 3))

    def embed(self, groups):
        """One pass of the backbone per resolution, one of the head over all crops."""
        return F.normalize(self.projection_head(torch.cat([self.backbone(g) for g in groups])), dim=1)


record = {}


def keep(name, tensor, dtype=torch.float32):
    record[name] = tensor.detach().to(dtype).contiguous().clone()


def draw_crops(name, generator):
    """Crops exact in float16, crop-major within a group."""
    groups = []
    for group, (count, size) in enumerate(CROPS):
        crops = torch.randn(count * BATCH, 3, size, size, generator=generator).half()
        keep(f"{name}/{group}", crops, torch.float16)
        groups.append(crops.double())
    return groups


closest = []


def assign(rows, centroids):
    products = rows @ centroids.T
    best = products.topk(2, dim=1).values
    closest.append((best[:, 0] - best[:, 1]).min().item())
    return products.argmax(dim=1)


def cluster(rows, centroids):
    for _ in range(ITERATIONS):
        labels = assign(rows, centroids)
        for k in range(CLUSTERS):
            if (labels == k).any():
                centroids[k] = rows[labels == k].mean(dim=0)
        centroids = F.normalize(centroids, dim=1)
    return centroids, assign(rows, centroids)


def main():
    generator = torch.Generator().manual_seed(SEED)
    torch.manual_seed(SEED)
    network = Network()
    for name, tensor in network.state_dict().items():
        if tensor.is_floating_point():
            keep(f"init/{name}", tensor)
    network.double().train()
    per_epoch = IMAGES // BATCH
    rows = per_epoch * BATCH
    banks = torch.zeros(len(ASSIGN), rows, DIM, dtype=torch.float64)
    images = torch.zeros(rows, dtype=torch.int64)

    def store(step, embeddings, index):
        place = slice(step * BATCH, (step + 1) * BATCH)
        images[place] = index
        for bank, z in enumerate(embeddings):
            banks[bank, place] = z.detach()

    def assigned(rows):
        return [rows[crop * BATCH:(crop + 1) * BATCH] for crop in ASSIGN]

    order = torch.randperm(IMAGES, generator=generator)
    for step in range(per_epoch):
        index = order[step * BATCH:(step + 1) * BATCH]
        keep(f"first/images/{step}", index, torch.int64)
        # As `init_memory` does: only the assigned crops, which are of the first group, each by itself.
        first_group = draw_crops(f"first/crops/{step}", generator)[0]
        with torch.no_grad():
            store(step, [network.embed([crop]) for crop in assigned(first_group)], index)

    velocity = {}
    losses, ignored = [], []
    for step in range(EPOCHS * per_epoch):
        epoch, within = divmod(step, per_epoch)
        if within == 0:
            labels = torch.full((HEADS, IMAGES), -100)
            if epoch > 0:
                order = torch.randperm(IMAGES, generator=generator)
            for head in range(HEADS):
                bank = banks[head % len(ASSIGN)]
                start = torch.randperm(rows, generator=generator)[:CLUSTERS]
                keep(f"start/{epoch}/{head}", start, torch.int64)
                centroids, found = cluster(bank, bank[start].clone())
                labels[head, images] = found
                with torch.no_grad():
                    network.prototypes.head(head).copy_(centroids)
                keep(f"centroids/{epoch}/{head}", centroids)
            keep(f"labels/{epoch}", labels, torch.int64)
        index = order[within * BATCH:(within + 1) * BATCH]
        keep(f"images/{step}", index, torch.int64)
        z = network.embed(draw_crops(f"crops/{step}", generator))
        views = sum(count for count, _ in CROPS)
        loss = 0
        for head in range(HEADS):
            scores = z @ network.prototypes.head(head).T
            loss = loss + F.cross_entropy(scores / TEMPERATURE, labels[head][index].repeat(views), ignore_index=-100) / HEADS
        ignored.append(int((labels[0][index] == -100).sum()))
        network.zero_grad()
        loss.backward()
        losses.append(loss.item())
        store(within, assigned(z), index)
        if step == 0:
            for name, parameter in network.named_parameters():
                keep(f"grad0/{name}", parameter.grad)
        with torch.no_grad():
            # apex' LARC without clipping over torch's SGD; the prototypes are frozen.
            for name, p in network.named_parameters():
                if name.startswith("prototypes"):
                    continue
                g, norms = p.grad, (p.norm(), p.grad.norm())
                if norms[0] != 0 and norms[1] != 0:
                    g = (g + DECAY * p) * TRUST * norms[0] / (norms[1] + DECAY * norms[0] + EPS)
                velocity[name] = g.clone() if name not in velocity else MOMENTUM * velocity[name] + g
                p -= LR[step] * velocity[name]
    for bank in range(len(ASSIGN)):
        keep(f"memory/{bank}", banks[bank])
    for name, tensor in network.state_dict().items():
        if tensor.is_floating_point():
            keep(f"final/{name}", tensor)
    keep("loss", torch.tensor(losses, dtype=torch.float64), torch.float64)
    about = dict(images=IMAGES, batch=BATCH, epochs=EPOCHS, crops=CROPS, assign=ASSIGN, width=WIDTH, hidden=HIDDEN, feat_dim=DIM, heads=HEADS,
                 clusters=CLUSTERS, iterations=ITERATIONS, temperature=TEMPERATURE, lr=LR, momentum=MOMENTUM, weight_decay=DECAY, trust=TRUST,
                 ignored=ignored)
    print("losses", losses)
    print("images without a label in each step", ignored)
    print("narrowest choice of a centroid", min(closest))
    # Rounding to float32 must not change any choice, and images without a label must occur.
    assert min(closest) > 1e-4 and sum(ignored) > 0
    write(Path(__file__).with_name("deepcluster.safetensors"), about)


def write(path, about):
    types = {torch.float16: "F16", torch.float32: "F32", torch.float64: "F64", torch.int64: "I64"}
    header, at, parts = {"__metadata__": {"deepcluster": json.dumps(about)}}, 0, []
    for name, tensor in sorted(record.items(), key=lambda item: (-item[1].element_size(), item[0])):
        data = bytes(tensor.flatten().view(torch.uint8).tolist())
        header[name] = {"dtype": types[tensor.dtype], "shape": list(tensor.shape), "data_offsets": [at, at + len(data)]}
        at += len(data)
        parts.append(data)
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    path.write_bytes(struct.pack("<Q", len(text)) + text + b"".join(parts))
    print(path, path.stat().st_size, "bytes")


main()
