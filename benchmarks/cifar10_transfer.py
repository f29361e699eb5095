"""CIFAR-10 by transfer: two pretrained backbones, frozen and fine-tuned, and their soft vote.

    KERAS_HOME=copy-of-shared/keras_home python benchmarks/cifar10_transfer.py --shared ../shared
    KERAS_HOME=copy-of-shared/keras_home python benchmarks/cifar10_transfer.py --shared ../shared --quick

The steps of the CIFAR-10 ablation project, whose best result was the soft vote of two fine-tuned backbones. Below the
accuracies stands what fine-tuning costs beside timm with torch.compile, channels-last and bfloat16: the same network,
the same batches, one GPU. Without CUDA, torch and timm that row says why it was not measured.
"""

import argparse
import contextlib
import importlib.util
import tempfile
import time

import _cifar10 as cifar10
import keras
import numpy as np
from _tables import save_table

import ensemble_keras as ek
from ensemble_keras.devices import supports_bfloat16, with_precision

BACKBONES = ["MobileNetV2(alpha=0.35)", "MobileNet(alpha=0.25)"]
HEADER = ["what", "accuracy frozen", "accuracy fine-tuned", "gain, points", "seconds frozen", "seconds fine-tuning"]
# Of the comparison with timm: a network that both have, and steps after as many to warm up.
NETWORK, IMAGE_SIZE, BATCH, STEPS = ("ResNet50", "resnet50"), 224, 128, 50


def main(arguments=None):
    options = parse(arguments)
    images, tests = (500, 300) if options.quick else (options.images, None)
    (x, y), (x_test, y_test), names = cifar10.load(options.shared)
    train = ek.ImageDataset.from_arrays(x[:images], y[:images], class_names=names)
    test = ek.ImageDataset.from_arrays(x_test[:tests], y_test[:tests], class_names=names)
    with tempfile.TemporaryDirectory() as folder:
        rows = transfer(train, test, options, store=f"{folder}/features.sqlite")
    ours, theirs, reason = beside_timm()
    rows += [
        [f"{NETWORK[0]} in {side}, images per second of fine-tuning", "", rate, "", "", ""]
        for side, rate in (("Keras", ours), ("timm", theirs))
    ]
    save_table(
        "cifar10_transfer_quick" if options.quick else "cifar10_transfer",
        "CIFAR-10, two backbones and their soft vote",
        HEADER,
        rows,
        notes=[
            f"{len(train)} training and {len(test)} test images at {options.image_size} px, seed {options.seed}, "
            f"{settings_of(options).epochs} epochs of fine-tuning, augmentation {options.augmentation!r}",
            "frozen: a linear head solved on the features of all training images; fine-tuning starts from one solved "
            "without the tenth of them that chooses the best epoch",
            f"images per second: {IMAGE_SIZE} px, {BATCH} images a step; timm with torch.compile; "
            f"{reason or 'bfloat16'}",
            "the CIFAR-10 ablation project, MobileNetV2 and DenseNet121 fine-tuned on all 50,000 images: .8842 and "
            ".9234, their soft vote .9341",
        ],
    )
    return rows


def parse(arguments):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shared", default="../shared", help="folder with data/cifar10")
    parser.add_argument("--backbones", nargs="+", default=BACKBONES)
    parser.add_argument("--images", type=int, default=10000, help="training images (default: %(default)s)")
    parser.add_argument("--image-size", type=int, default=112, help="pixels (default: %(default)s)")
    parser.add_argument("--epochs", type=int, default=5, help="of fine-tuning (default: %(default)s)")
    parser.add_argument("--augmentation", default="none", help="name of a policy (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--quick", action="store_true", help="few images and one epoch")
    return parser.parse_args(arguments)


def settings_of(options):
    return ek.FineTuning(epochs=1 if options.quick else options.epochs)


def transfer(train, test, options, store):
    """Returns a row per member, and one for the soft vote."""
    begin = time.perf_counter()
    classifier = ek.EnsembleClassifier(
        options.backbones, image_size=options.image_size, store=store, seed=options.seed
    )
    classifier.fit(train)
    seconds = [time.perf_counter() - begin]
    members = classifier.members_
    frozen = accuracies([*members, classifier.model_], test, options)
    for member in members:
        begin = time.perf_counter()
        history = ek.fine_tune(
            member,
            train,
            settings=settings_of(options),
            augmentation=options.augmentation,
            store=store,
            seed=options.seed,
        )
        seconds.append(time.perf_counter() - begin)
        print(f"{member.name}: epoch {history.best_epoch} is the best. {history.note}")
    tuned = accuracies([*members, ek.build_ensemble(members, ek.SoftVoting())], test, options)
    names = [*options.backbones, "soft vote"]
    spent = [*seconds[1:], sum(seconds[1:])]
    return [
        [name, f"{before:.4f}", f"{after:.4f}", f"{100 * (after - before):+.2f}", start, f"{cost:.0f}"]
        for name, before, after, start, cost in zip(
            names, frozen, tuned, [*[""] * len(members), f"{seconds[0]:.0f}"], spent, strict=True
        )
    ]


def accuracies(models, test, options):
    pixels = test.load(image_size=options.image_size)
    return [
        float((model.predict(pixels, batch_size=100, verbose=0).argmax(-1) == test.labels).mean()) for model in models
    ]


def beside_timm():
    """Returns images per second of ours and of timm's network, and where there are none, the reason."""
    reason = why_not()
    if reason:
        return "not measured", "not measured", f"not measured: {reason}"
    images = np.random.default_rng(0).integers(0, 256, (BATCH, IMAGE_SIZE, IMAGE_SIZE, 3), "uint8")
    labels = np.arange(BATCH) % cifar10.CLASSES
    return f"{of_keras(images, labels):.0f}", f"{of_timm(images, labels):.0f}", ""


def why_not():
    missing = [name for name in ("torch", "timm") if importlib.util.find_spec(name) is None]
    if missing:
        return f"{' and '.join(missing)} not installed"
    import torch

    return "" if torch.cuda.is_available() else "no CUDA GPU"


class SameBatch(keras.utils.PyDataset):
    """The same batch of images on the host, again and again."""

    def __init__(self, batch):
        super().__init__()
        self._batch = batch

    def __len__(self):
        return STEPS

    def __getitem__(self, index):
        return self._batch


def of_keras(images, labels):
    member = ek.build_member(NETWORK[0], cifar10.CLASSES, image_size=IMAGE_SIZE, weights=None)
    batches = SameBatch((images, labels))
    precision = with_precision(member, "mixed_bfloat16") if supports_bfloat16() else contextlib.nullcontext()
    with precision:
        member.compile(keras.optimizers.AdamW(3e-4), "sparse_categorical_crossentropy", jit_compile=True)
        member.fit(batches, verbose=0)
        begin = time.perf_counter()
        member.fit(batches, verbose=0)
    return STEPS * BATCH / (time.perf_counter() - begin)


def of_timm(images, labels):
    import timm
    import torch

    network = timm.create_model(NETWORK[1], num_classes=cifar10.CLASSES).cuda().to(memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(network.parameters(), 3e-4, fused=True)
    forward = torch.compile(network)
    host = torch.from_numpy(images).permute(0, 3, 1, 2).pin_memory(), torch.from_numpy(labels).pin_memory()

    def steps():
        for _ in range(STEPS):
            x, y = (part.cuda(non_blocking=True) for part in host)
            with torch.autocast("cuda", torch.bfloat16):
                loss = torch.nn.functional.cross_entropy(forward(x.float().div(127.5).sub(1)), y)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        torch.cuda.synchronize()

    steps()
    begin = time.perf_counter()
    steps()
    return STEPS * BATCH / (time.perf_counter() - begin)


if __name__ == "__main__":
    main()
